//! The knee of a latency-throughput curve: where more throughput begins to cost more latency than it
//! is worth.

/// Which of some points, each (throughput, latency), is the knee: the one with the most throughput
/// for its latency, which Kleinrock calls power ("Power and Deterministic Rules of Thumb for
/// Probabilistic Problems in Computer Communications", 1979). None where there are fewer than three,
/// since two points have no bend.
#[must_use]
pub fn knee(points: &[(f64, f64)]) -> Option<usize> {
    if points.len() < 3 {
        return None;
    }
    let power = |&(throughput, latency): &(f64, f64)| throughput / latency.max(f64::MIN_POSITIVE);
    let powers = points.iter().map(power).enumerate();
    let best = powers.max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_where_latency_begins_to_climb() {
        let curve = [
            (10.0, 1.0),
            (50.0, 1.1),
            (70.0, 1.3),
            (85.0, 3.0),
            (95.0, 40.0),
        ];
        assert_eq!(knee(&curve), Some(2));
        assert_eq!(knee(&curve[..2]), None);
    }
}

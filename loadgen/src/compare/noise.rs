//! Whether two sets of repeated measurements differ by more than their noise. Pure.

/// How two sides relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Repetitions differ as much among themselves.
    WithinNoise,
    /// More than noise explains, in 95 of 100 cases.
    Real,
    /// A side with one run says nothing of noise.
    Unknown,
}

/// Quantiles of Student's distribution for 95 %, two-sided, by degrees of freedom from 1.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// And for more.
const NORMAL: f64 = 1.96;

/// Welch's test ("The generalization of Student's problem when several different population variances
/// are involved", 1947): the two sides need neither the same number of runs nor the same noise.
#[must_use]
pub fn difference(before: &[f64], after: &[f64]) -> Difference {
    if before.len() < 2 || after.len() < 2 {
        return Difference::Unknown;
    }
    let (first, second) = (Moments::of(before), Moments::of(after));
    let error = first.error() + second.error();
    let distance = (first.mean - second.mean).abs();
    if error == 0.0 {
        return match distance == 0.0 {
            true => Difference::WithinNoise,
            false => Difference::Real,
        };
    }
    let freedom = error.powi(2) / (first.freedom_part() + second.freedom_part());
    match distance > quantile(freedom) * error.sqrt() {
        true => Difference::Real,
        false => Difference::WithinNoise,
    }
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            count,
            mean,
            variance: squares / (count - 1.0),
        }
    }

    /// The variance of the mean.
    fn error(&self) -> f64 {
        self.variance / self.count
    }

    /// Its part in the degrees of freedom (Welch and Satterthwaite).
    fn freedom_part(&self) -> f64 {
        self.error().powi(2) / (self.count - 1.0)
    }
}

fn quantile(freedom: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded down to be careful; at least 1, and few"
    )]
    let index = (freedom.max(1.0) as usize) - 1;
    STUDENT.get(index).copied().unwrap_or(NORMAL)
}

/// The middle value; of an even number, the mean of the two in the middle. 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => sorted[middle - 1].midpoint(sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_a_difference() {
        use Difference::{Real, Unknown, WithinNoise};
        let noisy = [100.0, 120.0, 90.0, 110.0];
        assert_eq!(difference(&noisy, &[105.0, 95.0, 118.0, 99.0]), WithinNoise);
        assert_eq!(difference(&noisy, &[150.0, 165.0, 158.0, 170.0]), Real);
        assert_eq!(
            difference(&[100.0, 101.0, 99.0], &[104.0, 105.0, 103.5]),
            Real
        );
        assert_eq!(difference(&noisy, &[500.0]), Unknown);
        assert_eq!(difference(&[5.0, 5.0], &[5.0, 5.0]), WithinNoise);
        assert_eq!(difference(&[5.0, 5.0], &[6.0, 6.0]), Real);
    }

    #[test]
    fn two_runs_a_side_prove_only_much() {
        let before = [100.0, 104.0];
        assert_eq!(
            difference(&before, &[108.0, 112.0]),
            Difference::WithinNoise
        );
        assert_eq!(difference(&before, &[140.0, 144.0]), Difference::Real);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}

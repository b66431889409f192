//! Where a value lies on an axis, and which values get a tick. Pure.

/// An axis's scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Equal steps are equal distances.
    Linear {
        /// The left or lower end.
        from: f64,
        /// The right or upper end.
        until: f64,
    },
    /// Equal factors are equal distances.
    Log {
        /// The left or lower end.
        from: f64,
        /// The right or upper end.
        until: f64,
    },
    /// Percentiles, each further nine as far from the last as the last from the one before.
    Nines {
        /// How many nines fit.
        count: f64,
    },
}

/// Ticks that fit without crowding.
const LINEAR_TICKS: f64 = 6.0;
/// More decades than this and only their beginnings get ticks.
const MANY_DECADES: f64 = 2.5;

impl Scale {
    /// A linear scale from 0 that holds all values, with some air above.
    #[must_use]
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let largest = values.into_iter().fold(0.0, f64::max);
        let until = if largest > 0.0 { largest * 1.08 } else { 1.0 };
        Self::Linear { from: 0.0, until }
    }

    /// A logarithmic scale that holds all values above 0, with some air on both sides.
    #[must_use]
    pub fn log_around(values: impl IntoIterator<Item = f64>) -> Self {
        let mut ends: Option<(f64, f64)> = None;
        for value in values.into_iter().filter(|value| *value > 0.0) {
            let (low, high) = ends.unwrap_or((value, value));
            ends = Some((low.min(value), high.max(value)));
        }
        let (low, high) = ends.unwrap_or((1.0, 10.0));
        Self::Log {
            from: low / 1.3,
            until: high * 1.5,
        }
    }

    /// Between 0 and 1 along the axis; beyond where it does not fit.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        match *self {
            Self::Linear { from, until } => (value - from) / (until - from),
            Self::Log { from, until } => {
                (value.max(f64::MIN_POSITIVE) / from).ln() / (until / from).ln()
            }
            Self::Nines { count } => {
                let rest = (1.0 - value / 100.0).max(f64::MIN_POSITIVE);
                -rest.log10() / count
            }
        }
    }

    /// The values that get a tick, in order.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        match *self {
            Self::Linear { from, until } => linear_ticks(from, until),
            Self::Log { from, until } => log_ticks(from, until),
            Self::Nines { count } => {
                let all = [
                    0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999,
                ];
                let fits = |percent: &f64| -(1.0 - percent / 100.0).log10() <= count + 1e-6;
                all.into_iter().filter(fits).collect()
            }
        }
    }
}

fn linear_ticks(from: f64, until: f64) -> Vec<f64> {
    let rough = (until - from) / LINEAR_TICKS;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * decade)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(decade * 10.0);
    let mut ticks = Vec::new();
    let mut tick = (from / step).ceil() * step;
    while tick <= until {
        ticks.push(tick);
        tick += step;
    }
    ticks
}

fn log_ticks(from: f64, until: f64) -> Vec<f64> {
    let decades = (until / from).log10();
    let steps: &[f64] = if decades > MANY_DECADES {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let mut ticks = Vec::new();
    let mut decade = 10_f64.powf(from.log10().floor());
    while decade <= until {
        let inside = steps.iter().map(|step| step * decade);
        ticks.extend(inside.filter(|tick| (from..=until).contains(tick)));
        decade *= 10.0;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_few() {
        let scale = Scale::from_zero([87.0, 412.0]);
        assert_eq!(scale.ticks(), [0.0, 100.0, 200.0, 300.0, 400.0]);
        assert!((scale.place(412.0) - 1.0 / 1.08).abs() < 1e-9);
        assert_eq!(Scale::from_zero([]).ticks().first(), Some(&0.0));
    }

    #[test]
    fn log_ticks_are_powers() {
        let narrow = Scale::Log {
            from: 100.0,
            until: 10_000.0,
        };
        let expected = [100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
        assert_eq!(narrow.ticks(), expected);
        assert!((narrow.place(1_000.0) - 0.5).abs() < 1e-9);
        let wide = Scale::log_around([90.0, 2_000_000.0]);
        assert_eq!(wide.ticks(), [100.0, 1e3, 1e4, 1e5, 1e6]);
    }

    #[test]
    fn each_nine_is_as_far_as_the_last() {
        let scale = Scale::Nines { count: 4.0 };
        assert_eq!(scale.ticks(), [0.0, 50.0, 90.0, 99.0, 99.9, 99.99]);
        assert!(scale.place(0.0).abs() < 1e-9);
        assert!((scale.place(99.0) - 0.5).abs() < 1e-9);
        assert!((scale.place(99.9) - 0.75).abs() < 1e-9);
    }
}

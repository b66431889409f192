//! Numbers as people type and read them: `10s`, `64KiB`, `250k`; `1.24 ms`, `412.3 MB/s`.

use std::time::Duration;

/// Parses a duration such as `10s`, `500ms`, `1m30s`, `200us`; `0` needs no unit.
///
/// # Errors
/// A sentence when the text is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(format!("{text} has no unit: write {text}s or {text}ms"));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("{text:?} is no duration: write 10s, 500ms, 1m30s or 1h"))
}

/// Parses a number of bytes such as `1000`, `64KiB` (or `64k`), `4MB`, `1GiB`.
///
/// # Errors
/// A sentence when the text is no such size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    scaled(text, |unit| {
        Some(match unit {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return None,
        })
    })
    .ok_or_else(|| format!("{text:?} is no size: write 1000, 64KiB, 4MB or 1GiB"))
}

/// Parses a count such as `1000`, `250k`, `2M`: decimal multiples.
///
/// # Errors
/// A sentence when the text is no such count.
pub fn parse_count(text: &str) -> Result<u64, String> {
    scaled(text, |unit| {
        Some(match unit {
            "" => 1,
            "k" => 1_000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            _ => return None,
        })
    })
    .ok_or_else(|| format!("{text:?} is no count: write 1000, 250k or 2M"))
}

/// Parses a part of a whole such as `50%`: 0.5.
///
/// # Errors
/// A sentence when the text is no such part, or more than the whole.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').map(str::trim);
    let number = number.and_then(|number| number.parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| format!("{text:?} is no part: write 50%"))
}

fn scaled(text: &str, multiple: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let number: u64 = digits.replace('_', "").parse().ok()?;
    number.checked_mul(multiple(&unit.trim().to_ascii_lowercase())?)
}

/// A latency to three digits: `87 us`, `1.24 ms`, `3.20 s`.
#[must_use]
pub fn show_us(us: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let number = us as f64;
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.2} ms", number / 1e3),
        10_000..100_000 => format!("{:.1} ms", number / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", number / 1e3),
        _ => format!("{:.2} s", number / 1e6),
    }
}

/// An integer with thousands separators: `1,024,000`.
#[must_use]
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How many of something: `1 partition`, `2,000 partitions`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", show_count(count))
}

/// A number rounded to an integer with thousands separators.
#[must_use]
pub fn show_rounded(number: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; counts and rates are positive and far below 2^64"
    )]
    show_count(number.round() as u64)
}

/// A number for an axis: `950`, `2.5k`, `50k`, `1.2M`.
#[must_use]
pub fn show_short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        ..999.5 => (number, ""),
        ..999_500.0 => (number / 1e3, "k"),
        ..999_500_000.0 => (number / 1e6, "M"),
        _ => (number / 1e9, "G"),
    };
    let digits = match scaled.abs() {
        size if size >= 99.5 || (scaled - scaled.round()).abs() < 0.005 => 0,
        9.95.. => 1,
        _ if unit.is_empty() => 2,
        _ => 1,
    };
    format!("{scaled:.digits$}{unit}")
}

/// A latency for an axis: `200 us`, `5 ms`, `1 s`.
#[must_use]
pub fn show_axis_us(us: f64) -> String {
    match us {
        ..999.5 => format!("{} us", show_short(us)),
        ..999_500.0 => format!("{} ms", show_short(us / 1e3)),
        _ => format!("{} s", show_short(us / 1e6)),
    }
}

/// A percentile with as many nines as it has: `50`, `99.9`, `99.9993`.
#[must_use]
pub fn show_percent(percent: f64) -> String {
    let text = format!("{percent:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number of bytes to three digits in binary units: `512 B`, `64.0 KiB`, `1.50 GiB`.
#[must_use]
pub fn show_bytes(bytes: f64) -> String {
    let mut number = bytes;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // What would round to four digits goes into the next unit.
    while number >= 999.5 {
        let Some(larger) = units.next() else { break };
        (number, unit) = (number / 1024.0, larger);
    }
    match number {
        _ if unit == "B" => format!("{number:.0} {unit}"),
        ..9.995 => format!("{number:.2} {unit}"),
        ..99.95 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(parse_duration("200us"), Ok(Duration::from_micros(200)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "10", "-5s", "ten", "10 parsecs"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert_eq!(parse_size("4 MB"), Ok(4_000_000));
        assert_eq!(parse_count("250k"), Ok(250_000));
        assert_eq!(parse_count("1_000"), Ok(1_000));
        for bad in [
            "",
            "k",
            "-1",
            "1.5k",
            "99999999999999999999",
            "20000000000000000g",
        ] {
            assert!(parse_size(bad).is_err(), "{bad:?} was taken");
            assert!(parse_count(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn parts() {
        assert_eq!(parse_percent("50%"), Ok(0.5));
        assert_eq!(parse_percent("0 %"), Ok(0.0));
        for bad in ["50", "101%", "-1%", "%", "NaN%"] {
            assert!(parse_percent(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(show_us(87), "87 us");
        assert_eq!(show_us(1_240), "1.24 ms");
        assert_eq!(show_us(3_200_000), "3.20 s");
        assert_eq!(show_count(0), "0");
        assert_eq!(show_count(1_024_000), "1,024,000");
        assert_eq!(show_rounded(1_999.6), "2,000");
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (950.0, "950"),
            (2_500.0, "2.5k"),
            (50_000.0, "50k"),
            (123_456.0, "123k"),
            (1_234_567.0, "1.2M"),
        ] {
            assert_eq!(show_short(number), text);
        }
        assert_eq!(show_axis_us(200.0), "200 us");
        assert_eq!(show_axis_us(5_000.0), "5 ms");
        assert_eq!(show_percent(99.9), "99.9");
        assert_eq!(show_percent(50.0), "50");
        for (bytes, text) in [
            (0.0, "0 B"),
            (512.0, "512 B"),
            (1_000.0, "0.98 KiB"),
            (65_536.0, "64.0 KiB"),
            (1_048_570.0, "1.00 MiB"),
            (1_610_612_736.0, "1.50 GiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}

//! Durations and sizes as people write them.

use std::time::Duration;

/// The longest duration: about a hundred years, so that sums with a time stay in range.
const MAX_SECONDS: u64 = 100 * 366 * 24 * 3600;

/// Reads `30s`, `1h30m`, `7d`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration; write one such as 30s, 15m, 1h30m or 7d");
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let part = match &after[..end] {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            "d" => seconds(24 * 3600),
            _ => return Err(wrong()),
        };
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| total.as_secs() <= MAX_SECONDS)
            .ok_or_else(|| format!("'{text}' is longer than a hundred years"))?;
        rest = &after[end..];
    }
    Ok(total)
}

/// Reads a Kubernetes quantity of bytes: `10Gi`, `1.5T`, `1000`, `1e9`, and `1500m` rounded up.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write one such as 500Mi, 10Gi or 2T");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u128 = match unit {
        "" => 1,
        "m" => return Ok(fixed(number, 1).ok_or_else(wrong)?.div_ceil(1000)),
        "k" => 1000,
        "M" => 1000u128.pow(2),
        "G" => 1000u128.pow(3),
        "T" => 1000u128.pow(4),
        "P" => 1000u128.pow(5),
        "E" => 1000u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => {
            let power = exponent.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
            let power: u32 = power.parse().map_err(|_| wrong())?;
            10u128.checked_pow(power).ok_or_else(wrong)?
        }
    };
    fixed(number, factor).ok_or_else(wrong)
}

/// A decimal number times a factor, rounded up.
fn fixed(number: &str, factor: u128) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let part = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u128>().ok(),
    };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = part(whole)?.checked_mul(factor)?;
    let fraction = part(fraction)?.checked_mul(factor)?.div_ceil(scale);
    u64::try_from(whole.checked_add(fraction)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("500ms", 500),
            ("1m500ms", 60_500),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "1.5h",
            "-5s",
            "5 s",
            "5S",
            "1w",
            "99999999999999999999s",
            "36601d",
            "5sé",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("1Gi", 1 << 30),
            ("1.5Ki", 1536),
            ("10G", 10_000_000_000),
            ("1000", 1000),
            ("1e3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("1500m", 2),
            ("0", 0),
            (".5Ki", 512),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "", "Gi", "1gi", "1 Gi", "-1", "1GB", "99Ei", "1e99", ".", "1.1.1",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

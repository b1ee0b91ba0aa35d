//! Until when a certificate holds. Nothing is checked here: whom to trust is for `tls`.

/// When the first certificate of a PEM text ends, in seconds since the epoch; `None`: it is none.
pub fn expires(pem: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    not_after(&unbase64(body)?)
}

/// Certificate → tbsCertificate → validity → notAfter (RFC 5280, 4.1).
fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der)?;
    let (mut at, _) = element(certificate.1)?;
    // The version is there from version 2 on, then serial number, algorithm and issuer.
    if at.1.first() == Some(&0xa0) {
        at.1 = element(at.1)?.1;
    }
    for _ in 0..3 {
        at.1 = element(at.1)?.1;
    }
    let (validity, _) = element(at.1)?;
    let (_, rest) = element(validity.1)?;
    let ((tag, text), _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    match tag {
        // UTCTime has two digits of the year: up to 2049 (RFC 5280, 4.1.2.5.1).
        0x17 => {
            let short: i64 = text.get(..2)?.parse().ok()?;
            seconds(
                if short < 50 {
                    2000 + short
                } else {
                    1900 + short
                },
                text.get(2..)?,
            )
        }
        0x18 => seconds(text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => None,
    }
}

type Element<'a> = (u8, &'a [u8]);

/// The first element of DER: its tag and content, and what follows.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(((tag, content), rest))
}

/// `MMDDhhmmss` of a year, UTC.
fn seconds(year: i64, rest: &str) -> Option<i64> {
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since the epoch, with years that begin in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?)
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
    {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ca -selfsign`, ending 2034-05-06T07:08:09Z and 2055-01-02T03:04:05Z.
    const SHORT: &str = include_str!("certificate/2034.pem");
    const LONG: &str = include_str!("certificate/2055.pem");

    #[test]
    fn its_end_is_read() {
        assert_eq!(expires(SHORT.as_bytes()), Some(2_030_512_089));
        assert_eq!(expires(LONG.as_bytes()), Some(2_682_471_845));
        for cut in (0..SHORT.len()).step_by(7) {
            let _ = expires(&SHORT.as_bytes()[..cut]);
        }
        assert_eq!(expires(b"nothing"), None);
    }

    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        assert_eq!(seconds(1970, "0101000000"), Some(0));
        assert_eq!(seconds(2000, "0229000000"), Some(951_782_400));
        assert_eq!(seconds(2026, "1130203354"), Some(1_796_070_834));
        assert_eq!(seconds(2026, "1330203354"), None);
    }
}

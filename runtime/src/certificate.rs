//! When a certificate ends: the one field of it that an operator has to hear of in time. Reads as much of the DER as
//! leads there, and trusts nothing of what it reads; whom to trust is for `tls`.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Seconds since 1970 at which the first certificate of a PEM file ends; `None` where it cannot be read.
pub fn expires(pem: &[u8]) -> Option<i64> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let mut outer = Der(&certificate);
    let mut certificate = Der(outer.next(SEQUENCE)?);
    let mut fields = Der(certificate.next(SEQUENCE)?);
    if fields.tag() == Some(VERSION) {
        fields.next(VERSION)?;
    }
    // Serial number, algorithm, issuer.
    fields.next(INTEGER)?;
    fields.next(SEQUENCE)?;
    fields.next(SEQUENCE)?;
    let mut validity = Der(fields.next(SEQUENCE)?);
    let tag = validity.tag()?;
    validity.next(tag)?;
    match validity.tag()? {
        UTC_TIME => {
            let text = validity.next(UTC_TIME)?;
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            // RFC 5280, 4.1.2.5.1.
            let century = if year >= 50 { 1900 } else { 2000 };
            seconds(century + year, rest)
        }
        GENERALIZED_TIME => {
            let text = validity.next(GENERALIZED_TIME)?;
            let (year, rest) = text.split_at_checked(4)?;
            seconds(number(year)?, rest)
        }
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// What has not been read yet.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which has this tag.
    fn next(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (&[found, short], rest) = self.0.split_first_chunk::<2>()?;
        if found != tag {
            return None;
        }
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

/// Month, day, hour, minute and second follow, and a Z.
fn seconds(year: i64, rest: &[u8]) -> Option<i64> {
    let digits = rest
        .strip_suffix(b"Z")
        .filter(|digits| digits.len() == 10)?;
    let mut parts = digits.chunks(2).map(number);
    let mut part = || parts.next().flatten();
    let (month, day, hour, minute, second) = (part()?, part()?, part()?, part()?, part()?);
    let is_sound = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    // Years begin in March: so February, with the day that comes and goes, is last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    is_sound.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

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
    fn dates_are_counted_right() {
        for (year, rest, expected) in [
            (1970, "0101000000Z", Some(0)),
            (2000, "0229235959Z", Some(951_868_799)),
            (2026, "1130203000Z", Some(1_796_070_600)),
            (2100, "0301000000Z", Some(4_107_542_400)),
            (2026, "1330000000Z", None),
            (2026, "113020300Z", None),
            (2026, "11302030+0Z", None),
        ] {
            assert_eq!(seconds(year, rest.as_bytes()), expected, "{year} {rest}");
        }
    }

    #[test]
    fn the_end_of_a_real_certificate_is_what_openssl_says() {
        let dir = tempfile::tempdir().unwrap();
        for (name, days) in [("near", "30"), ("far", "20000")] {
            let file = dir.path().join(name);
            let made = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"])
                .args(["-days", days, "-keyout", "/dev/null", "-out"])
                .arg(&file)
                .output();
            let Ok(made) = made else {
                eprintln!("openssl is not installed: not tried");
                return;
            };
            assert!(made.status.success());
            let said = Command::new("sh")
                .arg("-c")
                .arg(format!(
                    "date -u +%s -d \"$(openssl x509 -noout -enddate -in {} | cut -d= -f2)\"",
                    file.display()
                ))
                .output()
                .unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            let pem = std::fs::read(&file).unwrap();
            assert_eq!(expires(&pem), said.trim().parse().ok(), "{name}");
            let cut = String::from_utf8(pem).unwrap();
            assert_eq!(expires(&cut.as_bytes()[..cut.len() / 2]), None);
        }
        assert_eq!(expires(b""), None);
    }
}

//! What an agent is asked for when a policy's volume is backed up: the policy's files, change detection and
//! limits, whoever starts the run. Pure.

use crate::kube::api::{BusyFiles, DetectionMode, PolicySpec};
use crate::policy::values::bytes;
use holdfast_proto::v1 as proto;

/// The order for a run of this volume. What the policy does not say is 0 or empty: the agent's own settings
/// hold then.
pub fn order(spec: &PolicySpec, volume: &str) -> proto::BackupOrder {
    let files = spec.files.clone().unwrap_or_default();
    let detection = spec.change_detection.clone().unwrap_or_default();
    let limits = spec.limits.clone().unwrap_or_default();
    // A rate that is not understood makes its policy invalid, and an invalid policy has no volumes.
    let rate = |text: Option<String>| text.and_then(|text| bytes(&text).ok()).unwrap_or(0);
    proto::BackupOrder {
        volume: volume.to_owned(),
        exclude: files.exclude,
        include: files.include,
        detection: match detection.mode {
            DetectionMode::Auto => proto::Detection::Unspecified,
            DetectionMode::Walk => proto::Detection::Walk,
            DetectionMode::Read => proto::Detection::Read,
        }
        .into(),
        busy_files: match detection.busy_files {
            None => proto::BusyFiles::Unspecified,
            Some(BusyFiles::Settle) => proto::BusyFiles::Settle,
            Some(BusyFiles::Reread) => proto::BusyFiles::Reread,
        }
        .into(),
        read_rate: rate(limits.read_rate),
        send_rate: rate(limits.send_rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: &str) -> proto::BackupOrder {
        order(&serde_norway::from_str(spec).unwrap(), "shop/orders")
    }

    #[test]
    fn what_a_policy_says_is_in_the_order() {
        let asked = of("{files: {exclude: ['*.tmp'], include: [/data/]}, \
             changeDetection: {mode: Read, busyFiles: Reread}, \
             limits: {readRate: 50Mi, sendRate: 1M}}");
        let expected = proto::BackupOrder {
            volume: "shop/orders".to_owned(),
            exclude: vec!["*.tmp".to_owned()],
            include: vec!["/data/".to_owned()],
            detection: proto::Detection::Read.into(),
            busy_files: proto::BusyFiles::Reread.into(),
            read_rate: 50 << 20,
            send_rate: 1_000_000,
        };
        assert_eq!(asked, expected);
        let walk = of("{changeDetection: {mode: Walk, busyFiles: Settle}}");
        assert_eq!(walk.detection(), proto::Detection::Walk);
        assert_eq!(walk.busy_files(), proto::BusyFiles::Settle);
    }

    #[test]
    fn what_it_does_not_say_is_the_agents_to_decide() {
        let expected = proto::BackupOrder {
            volume: "shop/orders".to_owned(),
            ..proto::BackupOrder::default()
        };
        assert_eq!(of("{}"), expected);
    }
}

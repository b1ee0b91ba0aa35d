//! How a run's volume differs from the one before, and how unusual that is. Part of a snapshot record;
//! a record without it says nothing about it.
//!
//! Numbers are those the score was made of: told by the agent, or counted by the coordinator where it
//! can see for itself. Who makes the score is no matter of the format.

use crate::coding::{Reader, put_bytes, put_varint};
use crate::error::FormatError;
use std::fmt;

/// The highest score.
pub const MAX_SCORE: u8 = 100;
/// Longest reason of a walk, in bytes.
pub const MAX_WALK_REASON_BYTES: usize = 64;

/// Something unusual that a score is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Anomaly {
    /// Most of the volume is gone.
    MassDeletion = 1,
    /// Many files have another content.
    MassRewrite = 2,
    /// What is new does not compress, although what came before did.
    Incompressible = 3,
    /// Many files have another name.
    MassRename = 4,
}

impl Anomaly {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [
        Self::MassDeletion,
        Self::MassRewrite,
        Self::Incompressible,
        Self::MassRename,
    ];

    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MassDeletion => "MassDeletion",
            Self::MassRewrite => "MassRewrite",
            Self::Incompressible => "Incompressible",
            Self::MassRename => "MassRename",
        }
    }

    /// The one that this word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<u8> for Anomaly {
    type Error = FormatError;
    fn try_from(number: u8) -> Result<Self, FormatError> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == number);
        known.ok_or_else(|| FormatError::Unsupported {
            what: "anomaly",
            found: number.to_string(),
        })
    }
}

/// How the agent found what had changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Mode {
    /// It did not say.
    #[default]
    Untold = 0,
    /// Its change journal said what to look at.
    Journal = 1,
    /// It looked at everything.
    Walk = 2,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Untold, Self::Journal, Self::Walk];

    /// The stable word for it; empty for `Untold`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untold => "",
            Self::Journal => "journal",
            Self::Walk => "walk",
        }
    }

    /// The mode that this word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

macro_rules! counts {
    ($count:literal: $($(#[$doc:meta])* $name:ident)*) => {
        /// What was counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SignalCounts { $($(#[$doc])* pub $name: u64),* }

        impl SignalCounts {
            /// How many there are.
            pub const COUNT: usize = $count;

            /// The counts in stored order.
            pub fn counters(&self) -> [u64; $count] {
                [$(self.$name),*]
            }

            /// The counts in stored order, to be filled in.
            pub fn counters_mut(&mut self) -> [&mut u64; $count] {
                [$(&mut self.$name),*]
            }
        }
    };
}

counts! {
    14:
    /// Files at paths that the parent does not have, renamed ones not among them.
    added_files
    /// Files of the parent that are gone, renamed ones not among them.
    removed_files
    /// Files of the parent whose content is another one now.
    rewritten_files
    /// Contents of the parent found unchanged under another name.
    renamed_files
    /// Files of the parent.
    parent_files
    /// Sum of their sizes.
    parent_bytes
    /// Sum of the sizes of the removed files.
    removed_bytes
    /// Plain bytes of the frames that the run shipped.
    rewritten_plain_bytes
    /// Bytes of their payloads.
    rewritten_packed_bytes
    /// Entries of the snapshot before, of any kind.
    parent_entries
    /// Entries now.
    entries
    /// Entries of the parent whose path is gone.
    removed_entries
    /// Plain bytes of frames of the runs before, the newest weighing most.
    baseline_plain_bytes
    /// Bytes of their payloads.
    baseline_packed_bytes
}

/// How a run's volume differs from the one before, and how unusual that is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// What was counted.
    pub counts: SignalCounts,
    /// How the agent found what had changed.
    pub mode: Mode,
    /// Why it walked: one UpperCamelCase word; empty in any other mode, or if it did not say.
    pub walk_reason: String,
    /// How unusual the run is: at most `MAX_SCORE`.
    pub score: u8,
    /// What the score is made of, ascending; empty exactly when it is zero.
    pub reasons: Vec<Anomaly>,
    /// The snapshot, and what is older, is kept until somebody has acknowledged it.
    pub suspicious: bool,
}

impl Signals {
    /// The rule that it breaks.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.score > MAX_SCORE {
            return Err("a score above 100");
        }
        if (self.score == 0) != self.reasons.is_empty() || (self.suspicious && self.score == 0) {
            return Err("a score without reasons, or the reverse");
        }
        if !self.reasons.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("reasons of a score are not ascending");
        }
        let told = !self.walk_reason.is_empty();
        if told && (self.mode != Mode::Walk || !is_walk_reason(&self.walk_reason)) {
            return Err("the reason of a walk is not one UpperCamelCase word, or of no walk");
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.score);
        out.push(u8::from(self.suspicious));
        put_varint(out, self.reasons.len() as u64);
        out.extend(self.reasons.iter().map(|reason| *reason as u8));
        out.push(self.mode as u8);
        put_bytes(out, self.walk_reason.as_bytes());
        put_varint(out, SignalCounts::COUNT as u64);
        let counters = self.counts.counters();
        counters.iter().for_each(|value| put_varint(out, *value));
    }

    /// Reads what `encode` appended; the caller checks it.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut signals = Self {
            score: reader.u8()?,
            suspicious: reader.flag()?,
            ..Self::default()
        };
        for _ in 0..reader.count("reasons of a score", Anomaly::ALL.len())? {
            signals.reasons.push(Anomaly::try_from(reader.u8()?)?);
        }
        let mode = reader.u8()?;
        let known = Mode::ALL.into_iter().find(|known| *known as u8 == mode);
        signals.mode = known.ok_or_else(|| reader.wrong("unknown mode of a run"))?;
        signals.walk_reason = reader.text("reason of a walk", MAX_WALK_REASON_BYTES)?;
        if reader.varint()? != SignalCounts::COUNT as u64 {
            return Err(reader.wrong("not fourteen counts of signals"));
        }
        for counter in signals.counts.counters_mut() {
            *counter = reader.varint()?;
        }
        Ok(signals)
    }
}

/// Whether this can be the reason of a walk: one UpperCamelCase word, not too long.
pub fn is_walk_reason(word: &str) -> bool {
    word.len() <= MAX_WALK_REASON_BYTES
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Signals {
        let mut counts = SignalCounts::default();
        for (index, counter) in counts.counters_mut().into_iter().enumerate() {
            *counter = 1000 * index as u64 + 7;
        }
        Signals {
            counts,
            mode: Mode::Walk,
            walk_reason: "AgentRestarted".to_owned(),
            score: 90,
            reasons: vec![Anomaly::MassDeletion, Anomaly::Incompressible],
            suspicious: true,
        }
    }

    #[test]
    fn each_value_keeps_its_place() {
        let signals = signals();
        let expected: Vec<u64> = (0..14).map(|index| 1000 * index + 7).collect();
        assert_eq!(signals.counts.counters().to_vec(), expected);
        let mut bytes = Vec::new();
        signals.encode(&mut bytes);
        assert_eq!(bytes[..6], [90, 1, 2, 1, 3, 2]);
        let mut reader = Reader::new("signals", &bytes);
        assert_eq!(Signals::decode(&mut reader).unwrap(), signals);
        reader.finish().unwrap();
    }

    #[test]
    fn words_and_numbers_name_the_same() {
        for known in Anomaly::ALL {
            assert_eq!(Anomaly::from_word(known.as_str()), Some(known));
            assert_eq!(Anomaly::try_from(known as u8).unwrap(), known);
        }
        for known in Mode::ALL {
            assert_eq!(Mode::from_word(known.as_str()), Some(known));
        }
        assert!(Anomaly::try_from(0).is_err() && Anomaly::try_from(5).is_err());
        assert_eq!(Anomaly::from_word("massdeletion"), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        signals().check().unwrap();
        Signals::default().check().unwrap();
        let changes: [fn(&mut Signals); 8] = [
            |signals| signals.score = 101,
            |signals| signals.score = 0,
            |signals| signals.reasons.clear(),
            |signals| signals.reasons.reverse(),
            |signals| signals.reasons[1] = Anomaly::MassDeletion,
            |signals| signals.mode = Mode::Journal,
            |signals| signals.walk_reason = "agent restarted".to_owned(),
            |signals| signals.walk_reason = "A".repeat(65),
        ];
        for change in changes {
            let mut signals = signals();
            change(&mut signals);
            assert!(signals.check().is_err(), "{signals:?}");
        }
    }
}

//! What becomes of a record, and why one waits.

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The tables say what the record says.
    Stored,
    /// An earlier batch had brought it.
    Duplicate,
    /// Valid, but cannot be stored now.
    Held(Held),
}

/// Why a record waits in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub reason: Reason,
    /// One sentence with the values and the remedy.
    pub detail: String,
}

/// The kinds of reasons; also the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    UnknownMachine,
    UnknownPart,
    MissingOrder,
    NameTaken,
    Expired,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::UnknownMachine,
        Self::UnknownPart,
        Self::MissingOrder,
        Self::NameTaken,
        Self::Expired,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownMachine => "unknown_machine",
            Self::UnknownPart => "unknown_part",
            Self::MissingOrder => "missing_order",
            Self::NameTaken => "name_taken",
            Self::Expired => "expired",
        }
    }
}

impl Held {
    pub(in crate::store) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

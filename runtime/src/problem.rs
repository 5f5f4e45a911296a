//! What is wrong with a configuration, where, and what to do.

use std::fmt;

/// One problem of a configuration value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the value, for example `mqtt.listener[0].listen`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl Problem {
    pub fn new(path: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.problem, self.remedy)
    }
}

/// Appends a problem where `value` lies outside `range`.
pub fn check_range<T>(
    out: &mut Vec<Problem>,
    path: impl Into<String>,
    value: T,
    range: std::ops::RangeInclusive<T>,
) where
    T: PartialOrd + fmt::Display,
{
    if !range.contains(&value) {
        out.push(Problem::new(
            path,
            format!("{value} is out of range"),
            format!("use a value from {} to {}", range.start(), range.end()),
        ));
    }
}

/// [`check_range`] of fields by their names, a line each:
/// `check_ranges!(self, at, out, { linger_ms: 0..=10_000, partitions: 1..=1_000 })`; `at` is the path of `self`.
#[macro_export]
macro_rules! check_ranges {
    ($table:expr, $at:expr, $out:expr, { $($field:ident: $range:expr),+ $(,)? }) => {
        $($crate::problem::check_range($out, format!("{}.{}", $at, stringify!($field)), $table.$field, $range);)+
    };
}

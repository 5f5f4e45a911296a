//! The day of a price, in the fourteen forms that clients send and the one that is stored.

use time::{Date, Month};

/// A form: the separator, and the order and widths of its parts.
struct Form {
    separator: char,
    parts: [Part; 3],
}

#[derive(Clone, Copy)]
enum Part {
    /// Four digits.
    Year,
    /// Two digits.
    Month,
    /// One or two digits.
    ShortMonth,
    /// Two digits.
    Day,
    /// One or two digits.
    ShortDay,
}

use Part::{Day, Month as FullMonth, ShortDay, ShortMonth, Year};

/// The first that matches wins.
const FORMS: [Form; 14] = [
    Form {
        separator: '/',
        parts: [Day, FullMonth, Year],
    },
    Form {
        separator: '/',
        parts: [Year, FullMonth, Day],
    },
    Form {
        separator: '/',
        parts: [FullMonth, Day, Year],
    },
    Form {
        separator: '/',
        parts: [Year, Day, FullMonth],
    },
    Form {
        separator: '-',
        parts: [Day, FullMonth, Year],
    },
    Form {
        separator: '-',
        parts: [Year, FullMonth, Day],
    },
    Form {
        separator: '-',
        parts: [FullMonth, Day, Year],
    },
    Form {
        separator: '-',
        parts: [ShortMonth, ShortDay, Year],
    },
    Form {
        separator: '-',
        parts: [ShortDay, ShortMonth, Year],
    },
    Form {
        separator: '-',
        parts: [FullMonth, ShortDay, Year],
    },
    Form {
        separator: '-',
        parts: [ShortMonth, Day, Year],
    },
    Form {
        separator: '-',
        parts: [Day, ShortMonth, Year],
    },
    Form {
        separator: '-',
        parts: [ShortDay, FullMonth, Year],
    },
    Form {
        separator: '-',
        parts: [Year, Day, FullMonth],
    },
];

/// Place of `M-D-YYYY`, the form in which dates are stored.
const STORED_FORM: usize = 7;

/// A day without time or zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PriceDate(Date);

impl PriceDate {
    /// Reads what a client sent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        FORMS.iter().find_map(|form| form.parse(text)).map(Self)
    }

    /// Reads what is stored: always `M-D-YYYY`, so `11-10-2020` is the 10th of November.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        FORMS
            .get(STORED_FORM)?
            .parse(text)
            .map(Self)
            .or_else(|| Self::parse(text))
    }

    pub(crate) fn to_stored(self) -> String {
        let (year, month, day) = self.0.to_calendar_date();
        format!("{}-{day}-{year:04}", u8::from(month))
    }

    /// Midnight UTC.
    pub(crate) fn to_iso(self) -> String {
        let (year, month, day) = self.0.to_calendar_date();
        format!("{year:04}-{:02}-{day:02}T00:00:00.000Z", u8::from(month))
    }
}

impl Form {
    fn parse(&self, text: &str) -> Option<Date> {
        let mut texts = text.split(self.separator);
        let (mut year, mut month, mut day) = (0, 0, 0);
        for part in self.parts {
            let digits = texts.next()?;
            let widths = match part {
                Year => 4..=4,
                FullMonth | Day => 2..=2,
                ShortMonth | ShortDay => 1..=2,
            };
            if !widths.contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            match part {
                Year => year = digits.parse().ok()?,
                FullMonth | ShortMonth => month = digits.parse::<u8>().ok()?,
                Day | ShortDay => day = digits.parse().ok()?,
            }
        }
        let month = Month::try_from(month).ok()?;
        texts
            .next()
            .is_none()
            .then(|| Date::from_calendar_date(year, month, day).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_form_that_matches_wins() {
        for (text, stored) in [
            ("11/10/2020", "10-11-2020"),
            ("02/15/2020", "2-15-2020"),
            ("2020/15/02", "2-15-2020"),
            ("16-02-2020", "2-16-2020"),
            ("2020-02-17", "2-17-2020"),
            ("9-2-2020", "9-2-2020"),
            ("7-02-2020", "7-2-2020"),
            ("21-2-2020", "2-21-2020"),
            ("2020-22-02", "2-22-2020"),
            ("01/01/0001", "1-1-0001"),
        ] {
            assert_eq!(
                PriceDate::parse(text).map(PriceDate::to_stored).as_deref(),
                Some(stored),
                "{text:?}"
            );
        }
        for text in [
            "2020-2-15",
            "29/02/2021",
            "00/00/0000",
            "1/2/2020",
            "15-02-20200",
            " 15/02/2020",
            "",
        ] {
            assert_eq!(PriceDate::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_day_comes_back_as_it_was_stored(ordinal in 1..=366_u16, year in 1..=9999_i32) {
            let Ok(date) = Date::from_ordinal_date(year, ordinal) else { return Ok(()) };
            let date = PriceDate(date);
            prop_assert_eq!(PriceDate::from_stored(&date.to_stored()), Some(date));
        }
    }
}

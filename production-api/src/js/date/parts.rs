//! What a date's text was found to say: numbers of a day, of a time and of a zone.

#[derive(Default)]
pub(super) struct Parts {
    pub(super) day: Day,
    pub(super) time: Time,
    pub(super) zone: Zone,
}

/// Up to three date numbers and a month's name.
#[derive(Default)]
pub(super) struct Day {
    pub(super) numbers: Vec<i64>,
    pub(super) named_month: Option<i64>,
    pub(super) is_ecmascript: bool,
}

impl Day {
    pub(super) fn add(&mut self, number: i64) -> Option<()> {
        (self.numbers.len() < 3).then(|| self.numbers.push(number))
    }

    /// Year, month and day from the numbers, by what they can be.
    pub(super) fn resolve(&self) -> Option<(i64, i64, i64)> {
        let is_day = |n: i64| (1..=31).contains(&n);
        let first = *self.numbers.first()?;
        let second = self.numbers.get(1).copied().unwrap_or(1);
        let third = self.numbers.get(2).copied().unwrap_or(1);
        let (year, month, day) = match self.named_month {
            None if self.is_ecmascript || !is_day(first) => (first, second, third),
            None => (third, first, second),
            Some(month) if !is_day(first) => (first, month, second),
            Some(month) => (second, month, first),
        };
        let year = match year {
            _ if self.is_ecmascript => year,
            0..=49 => year + 2000,
            50..=99 => year + 1900,
            _ => year,
        };
        ((1..=12).contains(&month) && is_day(day)).then_some((year, month, day))
    }
}

/// Up to hour, minute, second and millisecond.
#[derive(Default)]
pub(super) struct Time {
    pub(super) numbers: Vec<i64>,
    /// 0 after AM, 12 after PM.
    pub(super) half_day: Option<i64>,
}

impl Time {
    pub(super) fn add(&mut self, number: i64) -> Option<()> {
        (self.numbers.len() < 4).then(|| self.numbers.push(number))
    }

    pub(super) fn add_final(&mut self, number: i64) -> Option<()> {
        self.add(number)?;
        self.numbers.resize(4, 0);
        Some(())
    }

    pub(super) fn is_expecting(&self, number: i64) -> bool {
        match self.numbers.len() {
            1 | 2 => (0..60).contains(&number),
            3 => (0..1000).contains(&number),
            _ => false,
        }
    }

    pub(super) fn resolve(&self) -> Option<i64> {
        let part = |place: usize| self.numbers.get(place).copied().unwrap_or(0);
        let (mut hour, minute, second, ms) = (part(0), part(1), part(2), part(3));
        if let Some(half_day) = self.half_day {
            if !(0..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + half_day;
        }
        let within = hour < 24 && minute < 60 && second < 60 && ms < 1000;
        let midnight = hour == 24 && minute == 0 && second == 0 && ms == 0;
        (within || midnight).then(|| ((hour * 60 + minute) * 60 + second) * 1000 + ms)
    }
}

/// The offset from UTC; none is UTC too, the zone that the original ran in.
#[derive(Default)]
pub(super) struct Zone {
    pub(super) sign: Option<i64>,
    pub(super) hour: Option<i64>,
    pub(super) minute: Option<i64>,
}

impl Zone {
    pub(super) fn set(&mut self, hours: i64) {
        self.sign = Some(if hours < 0 { -1 } else { 1 });
        self.hour = Some(hours.abs());
        self.minute = Some(0);
    }

    pub(super) fn is_utc(&self) -> bool {
        self.hour == Some(0) && self.minute == Some(0)
    }

    pub(super) fn is_expecting(&self, number: i64) -> bool {
        self.hour.is_some() && self.minute.is_none() && (0..60).contains(&number)
    }

    pub(super) fn offset_ms(&self) -> i64 {
        let minutes = self.hour.unwrap_or(0) * 60 + self.minute.unwrap_or(0);
        self.sign.unwrap_or(0) * minutes * 60_000
    }
}

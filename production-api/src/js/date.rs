//! `new Date(value)` and `toISOString()`, in UTC, as V8 reads dates: the ECMAScript format first, then whatever
//! its lenient reader makes of the rest (`Sun, 10 Dec 2023 10:00:00 GMT`, `12/10/2023`, `2023-12-10 10:00:00`).

mod parts;
mod tokens;

use parts::Parts;
use tokens::{Keyword, Token, Tokens};

/// Largest distance from 1970 in milliseconds, either way.
const MAX_TIME_MS: f64 = 8.64e15;
const MS_PER_DAY: i64 = 86_400_000;

/// `new Date(number)`: milliseconds since 1970, whole; `None` is an invalid date.
pub(crate) fn from_number(value: f64) -> Option<i64> {
    (value.abs() <= MAX_TIME_MS).then_some(value as i64)
}

/// `new Date(text)`: milliseconds since 1970; `None` is an invalid date.
pub(crate) fn from_text(text: &str) -> Option<i64> {
    let mut tokens = Tokens::new(text);
    let mut parts = Parts::default();
    match ecmascript(&mut tokens, &mut parts)? {
        Token::End => {}
        next => lenient(next, &mut tokens, &mut parts)?,
    }
    let (year, month, day) = parts.day.resolve()?;
    let time_ms = parts.time.resolve()?;
    let days = days_from_civil(year, month, 1).checked_add(day - 1)?;
    let ms = days.checked_mul(MS_PER_DAY)?.checked_add(time_ms)?;
    from_number(ms.checked_sub(parts.zone.offset_ms())? as f64)
}

/// `toISOString()`: `2023-12-10T00:00:00.000Z`, years outside 0..=9999 with a sign and six digits.
pub(crate) fn to_iso(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let date = match year {
        0..=9999 => format!("{year:04}"),
        year if year < 0 => format!("-{:06}", -year),
        year => format!("+{year:06}"),
    };
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{date}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The format that ECMAScript specifies. Answers the first token that does not belong to it, for the lenient
/// reader to go on with; `None` where the text cannot be a date at all.
fn ecmascript(tokens: &mut Tokens<'_>, parts: &mut Parts) -> Option<Token> {
    match tokens.peek() {
        Token::Symbol(sign @ (b'+' | b'-')) => {
            let kept = tokens.next();
            let Some(year) = tokens.fixed(6) else {
                return Some(kept);
            };
            if sign == b'-' && year == 0 {
                return Some(kept);
            }
            tokens.next();
            parts.day.add(if sign == b'-' { -year } else { year })?;
        }
        Token::Number { value, length: 4 } => {
            tokens.next();
            parts.day.add(value)?;
        }
        _ => return Some(tokens.next()),
    }
    for most in [12, 31] {
        if !tokens.skip(b'-') {
            break;
        }
        match tokens.fixed(2) {
            Some(number) if (1..=most).contains(&number) => {
                tokens.next();
                parts.day.add(number)?;
            }
            _ => return Some(tokens.next()),
        }
    }
    match tokens.peek() {
        Token::Word {
            keyword: Keyword::TimeSeparator,
            ..
        } => {
            tokens.next();
            ecmascript_time(tokens, parts)?;
        }
        Token::End => {}
        _ => return Some(tokens.next()),
    }
    parts.day.is_ecmascript = true;
    Some(Token::End)
}

/// `HH:mm[:ss[.sss]]` and `Z` or `±HH:mm`, to the end of the text.
fn ecmascript_time(tokens: &mut Tokens<'_>, parts: &mut Parts) -> Option<()> {
    let number = |tokens: &mut Tokens<'_>, most: i64| {
        let number = tokens.fixed(2).filter(|number| *number <= most)?;
        tokens.next();
        Some(number)
    };
    let hour = number(tokens, 24)?;
    // 24:00 is allowed, later is not.
    let (most, most_ms) = if hour == 24 { (0, 0) } else { (59, 999) };
    parts.time.add(hour)?;
    tokens.skip(b':').then_some(())?;
    parts.time.add(number(tokens, most)?)?;
    if tokens.skip(b':') {
        parts.time.add(number(tokens, most)?)?;
        if tokens.skip(b'.') {
            let ms = milliseconds(tokens.next())?;
            parts.time.add(Some(ms).filter(|ms| *ms <= most_ms)?)?;
        }
    }
    match tokens.peek() {
        Token::Word {
            keyword: Keyword::Zone(0),
            length: 1,
        } => {
            tokens.next();
            parts.zone.set(0);
        }
        Token::Symbol(sign @ (b'+' | b'-')) => {
            tokens.next();
            parts.zone.sign = Some(if sign == b'+' { 1 } else { -1 });
            let (hour, minute) = match tokens.fixed(4) {
                Some(both) => {
                    tokens.next();
                    (both / 100, both % 100)
                }
                None => {
                    let hour = number(tokens, 23)?;
                    tokens.skip(b':').then_some(())?;
                    (hour, number(tokens, 59)?)
                }
            };
            (hour < 24 && minute < 60).then_some(())?;
            (parts.zone.hour, parts.zone.minute) = (Some(hour), Some(minute));
        }
        _ => {}
    }
    (tokens.peek() == Token::End).then_some(())
}

/// The lenient reader: words before the first number are ignored, a number before `:` is a time, any other a
/// date number; parentheses are skipped.
fn lenient(first: Token, tokens: &mut Tokens<'_>, parts: &mut Parts) -> Option<()> {
    let mut has_read_number = !parts.day.numbers.is_empty();
    let mut token = first;
    while token != Token::End {
        match token {
            Token::Number { value, .. } => {
                has_read_number = true;
                lenient_number(value, tokens, parts)?;
            }
            Token::Word { keyword, .. } => match keyword {
                Keyword::HalfDay(offset) if !parts.time.numbers.is_empty() => {
                    parts.time.half_day = Some(offset)
                }
                Keyword::Month(month) => {
                    parts.day.named_month = Some(month);
                    tokens.skip(b'-');
                }
                Keyword::Zone(hours) if has_read_number => parts.zone.set(hours),
                // Garbage may stand before the first number only, and apart from it.
                _ if has_read_number || matches!(tokens.peek(), Token::Number { .. }) => return None,
                _ => {}
            },
            Token::Symbol(sign @ (b'+' | b'-')) if parts.zone.is_utc() || !parts.time.numbers.is_empty() => {
                has_read_number = true;
                parts.zone.sign = Some(if sign == b'+' { 1 } else { -1 });
                lenient_offset(tokens, parts)?;
            }
            Token::Symbol(b'+' | b'-' | b')') if has_read_number => return None,
            _ => {}
        }
        token = tokens.next();
    }
    Some(())
}

fn lenient_number(number: i64, tokens: &mut Tokens<'_>, parts: &mut Parts) -> Option<()> {
    if tokens.skip(b':') {
        if tokens.skip(b':') {
            // `10::` is ten hours, no minutes.
            return parts
                .time
                .numbers
                .is_empty()
                .then(|| parts.time.numbers.extend([number, 0]));
        }
        parts.time.add(number)?;
        tokens.skip(b'.');
        return Some(());
    }
    let dot = tokens.skip(b'.');
    if dot && parts.time.is_expecting(number) {
        parts.time.add(number)?;
        return parts.time.add_final(milliseconds(tokens.next())?);
    }
    if parts.zone.is_expecting(number) {
        parts.zone.minute = Some(number);
        return Some(());
    }
    if parts.time.is_expecting(number) {
        parts.time.add_final(number)?;
        let ends = matches!(
            tokens.peek(),
            Token::End
                | Token::Space
                | Token::Symbol(b'+' | b'-')
                | Token::Word {
                    keyword: Keyword::Zone(0),
                    length: 1
                }
        );
        return ends.then_some(());
    }
    parts.day.add(number)?;
    tokens.skip(b'-');
    Some(())
}

/// After the sign: `+2`, `+02`, `+0200` or `+02:00`.
fn lenient_offset(tokens: &mut Tokens<'_>, parts: &mut Parts) -> Option<()> {
    let (number, length) = match tokens.peek() {
        Token::Number { value, length } => {
            tokens.next();
            (value, length)
        }
        _ => (0, 0),
    };
    let (hour, minute) = match length {
        _ if tokens.peek() == Token::Symbol(b':') => (number, None),
        1 | 2 => (number, Some(0)),
        3 | 4 => (number / 100, Some(number % 100)),
        _ => return None,
    };
    (parts.zone.hour, parts.zone.minute) = (Some(hour), minute);
    Some(())
}

/// The digits after the point, as milliseconds: `.5` is 500.
fn milliseconds(token: Token) -> Option<i64> {
    let Token::Number { value, length } = token else {
        return None;
    };
    Some(match length {
        1 => value * 100,
        2 => value * 10,
        3 => value,
        _ => value / 10_i64.pow(length.min(9) as u32 - 3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read_as_v8_reads_them() {
        for (text, iso) in [
            ("2023-12-10", "2023-12-10T00:00:00.000Z"),
            ("2023", "2023-01-01T00:00:00.000Z"),
            ("2023-12-10T10:00:00+02:00", "2023-12-10T08:00:00.000Z"),
            ("2023-12-10T10:00:00", "2023-12-10T10:00:00.000Z"),
            ("2023-12-10 10:00:00", "2023-12-10T10:00:00.000Z"),
            ("2023-12-10T10:00:00.5Z", "2023-12-10T10:00:00.500Z"),
            ("2023-12-10T10:00:00.123456Z", "2023-12-10T10:00:00.123Z"),
            ("2023-12-10T24:00:00Z", "2023-12-11T00:00:00.000Z"),
            ("Sun, 10 Dec 2023 10:00:00 GMT", "2023-12-10T10:00:00.000Z"),
            ("Dec 10, 2023", "2023-12-10T00:00:00.000Z"),
            ("10 December 2023 3:04 PM", "2023-12-10T15:04:00.000Z"),
            (
                "Sun Dec 10 2023 10:00:00 GMT+0100 (CET)",
                "2023-12-10T09:00:00.000Z",
            ),
            ("12/10/2023", "2023-12-10T00:00:00.000Z"),
            ("1/2/49", "2049-01-02T00:00:00.000Z"),
            ("2023-02-30", "2023-03-02T00:00:00.000Z"),
            ("+010000-01-01T00:00:00Z", "+010000-01-01T00:00:00.000Z"),
            ("-000001-01-01T00:00:00Z", "-000001-01-01T00:00:00.000Z"),
            ("0000-01-01", "0000-01-01T00:00:00.000Z"),
            ("1969-12-31T23:59:59.500Z", "1969-12-31T23:59:59.500Z"),
        ] {
            assert_eq!(from_text(text).map(to_iso).as_deref(), Some(iso), "{text:?}");
        }
    }

    #[test]
    fn what_v8_refuses_is_no_date() {
        for text in [
            "",
            "not a date",
            "25/12/2023",
            "2023-13-01",
            "1702166400",
            "2023-12-10T25:00:00Z",
            "2023-12-10T",
            "2023-12-10T10:00:00Zx",
            "99999999999999999999",
        ] {
            assert_eq!(from_text(text), None, "{text:?}");
        }
        assert_eq!(from_number(8.64e15 + 1.0), None);
        assert_eq!(from_number(f64::NAN), None);
        assert_eq!(
            from_number(8.64e15).map(to_iso).as_deref(),
            Some("+275760-09-13T00:00:00.000Z")
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in -8_640_000_000_000_000_i64..=8_640_000_000_000_000) {
            prop_assert_eq!(from_text(&to_iso(ms)), Some(ms));
        }

        #[test]
        fn no_text_makes_it_panic(text in r"[0-9:.()+/\- TZadejnpmé]{0,40}") {
            let _outcome = from_text(&text);
        }
    }
}

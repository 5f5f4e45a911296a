//! The contract's two time formats, both UTC.

use time::{Date, Month, OffsetDateTime};

/// Reads `YYYY-MM-DDTHH:MM:SS.mmmZ` of the years 0001 to 9999, in milliseconds since the Unix epoch; `None` for any
/// other form and for days that do not exist.
pub fn parse_production_time(text: &str) -> Option<i64> {
    let seconds = seconds_of(text, b'T')?;
    let [b'.', millis @ .., b'Z'] = text.as_bytes().get(19..24)? else {
        return None;
    };
    let millis = number(millis)?;
    (text.len() == 24).then_some(seconds * 1_000 + i64::from(millis))
}

/// The client's `lastUpdate`: `YYYY-MM-DD HH:MM:SS.0000000`, a real date.
pub fn is_last_update(text: &str) -> bool {
    seconds_of(text, b' ').is_some() && text.as_bytes().get(19..) == Some(b".0000000")
}

/// Writes `YYYY-MM-DDTHH:MM:SS.mmmZ`; `None` outside of the years 0001 to 9999.
pub fn production_time(ms: i64) -> Option<String> {
    let (date, second_of_day) = split(ms.div_euclid(1_000))?;
    let mut text = Vec::with_capacity(24);
    write_to_seconds(date, second_of_day, b'T', &mut text);
    text.push(b'.');
    write_digits(ms.rem_euclid(1_000).unsigned_abs() as u32, 3, &mut text);
    text.push(b'Z');
    String::from_utf8(text).ok()
}

/// Appends `YYYY-MM-DD HH:MM:SS.0000000` (27 bytes). A time outside of the years 0001 to 9999, which only a broken
/// clock can tell, becomes the Unix epoch.
pub fn write_last_update(ms: i64, out: &mut Vec<u8>) {
    let (date, second_of_day) = split(ms.div_euclid(1_000)).unwrap_or((OffsetDateTime::UNIX_EPOCH.date(), 0));
    write_to_seconds(date, second_of_day, b' ', out);
    out.extend_from_slice(b".0000000");
}

fn seconds_of(text: &str, separator: u8) -> Option<i64> {
    let bytes = text.as_bytes();
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        mo1,
        mo2,
        b'-',
        d1,
        d2,
        found,
        h1,
        h2,
        b':',
        mi1,
        mi2,
        b':',
        s1,
        s2,
    ] = bytes.get(..19)?
    else {
        return None;
    };
    if *found != separator {
        return None;
    }
    let year = number(&[*y1, *y2, *y3, *y4]).filter(|year| *year > 0)?;
    let month = Month::try_from(number(&[*mo1, *mo2])? as u8).ok()?;
    let date = Date::from_calendar_date(year as i32, month, number(&[*d1, *d2])? as u8).ok()?;
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*mi1, *mi2])?, number(&[*s1, *s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = i64::from(date.to_julian_day()) - i64::from(OffsetDateTime::UNIX_EPOCH.date().to_julian_day());
    Some(days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second))
}

/// A number of digits only; at most four of them come here.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'))
    })
}

fn split(seconds: i64) -> Option<(Date, u32)> {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    (1..=9_999)
        .contains(&moment.year())
        .then(|| (moment.date(), seconds.rem_euclid(86_400) as u32))
}

fn write_to_seconds(date: Date, second_of_day: u32, separator: u8, out: &mut Vec<u8>) {
    let (year, month, day) = date.to_calendar_date();
    write_digits(year.unsigned_abs(), 4, out);
    out.push(b'-');
    write_digits(u32::from(u8::from(month)), 2, out);
    out.push(b'-');
    write_digits(u32::from(day), 2, out);
    out.push(separator);
    write_digits(second_of_day / 3_600, 2, out);
    out.push(b':');
    write_digits(second_of_day / 60 % 60, 2, out);
    out.push(b':');
    write_digits(second_of_day % 60, 2, out);
}

fn write_digits(value: u32, digits: u32, out: &mut Vec<u8>) {
    for place in (0..digits).rev() {
        out.push(b'0' + (value / 10_u32.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn production_times_are_read_to_the_millisecond() {
        assert_eq!(parse_production_time("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(
            parse_production_time("2023-12-10T00:00:00.001Z"),
            Some(1_702_166_400_001)
        );
        assert_eq!(
            parse_production_time("2024-02-29T23:59:59.999Z"),
            Some(1_709_251_199_999)
        );
        assert_eq!(
            parse_production_time("0001-01-01T00:00:00.000Z"),
            Some(-62_135_596_800_000)
        );
    }

    #[test]
    fn no_other_form_of_time_is_taken() {
        for text in [
            "",
            "2023-12-10T00:00:00Z",
            "2023-12-10T00:00:00.00Z",
            "2023-12-10T00:00:00.0000Z",
            "2023-12-10 00:00:00.000Z",
            "2023-12-10T00:00:00.000z",
            "2023-12-10T00:00:00.000+00:00",
            "2023-02-29T00:00:00.000Z",
            "2023-13-01T00:00:00.000Z",
            "2023-00-01T00:00:00.000Z",
            "2023-01-00T00:00:00.000Z",
            "2023-01-01T24:00:00.000Z",
            "2023-01-01T23:60:00.000Z",
            "2023-01-01T23:59:60.000Z",
            "0000-01-01T00:00:00.000Z",
            "+023-01-01T00:00:00.000Z",
            "12023-01-01T00:00:00.000Z",
            "2023-1-01T00:00:00.000Z",
            "２023-01-01T00:00:00.0Z",
            "1702166400",
        ] {
            assert_eq!(parse_production_time(text), None, "{text}");
        }
    }

    #[test]
    fn last_update_is_whole_seconds() {
        let mut out = Vec::new();
        write_last_update(1_702_166_400_999, &mut out);
        assert_eq!(out, b"2023-12-10 00:00:00.0000000");
        assert!(is_last_update("2023-12-10 00:00:00.0000000"));
        for text in [
            "2023-12-10T00:00:00.0000000",
            "2023-12-10 00:00:00.000000",
            "2023-12-32 00:00:00.0000000",
        ] {
            assert!(!is_last_update(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ms in -62_135_596_800_000_i64..253_402_300_800_000) {
            prop_assert_eq!(parse_production_time(&production_time(ms).unwrap()), Some(ms));
        }

        #[test]
        fn any_clock_makes_a_last_update(ms in any::<i64>()) {
            let mut out = Vec::new();
            write_last_update(ms, &mut out);
            prop_assert!(is_last_update(std::str::from_utf8(&out).unwrap()));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*") {
            let _time = parse_production_time(&text);
        }
    }
}

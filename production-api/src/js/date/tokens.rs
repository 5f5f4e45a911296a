//! A date's text as numbers, words and symbols.

/// What a word means; only its first three letters count, and longer words only where they name a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Month(i64),
    /// Hours that AM or PM add.
    HalfDay(i64),
    /// Hours from UTC.
    Zone(i64),
    /// `T`.
    TimeSeparator,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The first nine significant digits and the length in characters.
    Number {
        value: i64,
        length: usize,
    },
    Word {
        keyword: Keyword,
        length: usize,
    },
    Symbol(u8),
    Space,
    Unknown,
    End,
}

/// Tokens of a text, one ahead.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    ahead: Token,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut tokens = Self {
            rest: text,
            ahead: Token::End,
        };
        tokens.ahead = tokens.scan();
        tokens
    }

    pub(super) fn peek(&self) -> Token {
        self.ahead
    }

    pub(super) fn next(&mut self) -> Token {
        let next = self.scan();
        std::mem::replace(&mut self.ahead, next)
    }

    pub(super) fn skip(&mut self, symbol: u8) -> bool {
        let found = self.ahead == Token::Symbol(symbol);
        if found {
            self.next();
        }
        found
    }

    /// The number ahead where it has exactly `digits` digits.
    pub(super) fn fixed(&self, digits: usize) -> Option<i64> {
        match self.ahead {
            Token::Number { value, length } if length == digits => Some(value),
            _ => None,
        }
    }

    fn scan(&mut self) -> Token {
        let Some(first) = self.rest.chars().next() else {
            return Token::End;
        };
        if first.is_ascii_digit() {
            let digits = self.take(|c| c.is_ascii_digit());
            let value = digits.trim_start_matches('0').chars().take(9);
            let value = value.fold(0, |n, c| n * 10 + i64::from(c.to_digit(10).unwrap_or(0)));
            return Token::Number {
                value,
                length: digits.len(),
            };
        }
        if first >= 'A' && !super::super::is_space(first) {
            let word = self.take(|c| c >= 'A' && !super::super::is_space(c));
            return Token::Word {
                keyword: keyword(word),
                length: word.chars().count(),
            };
        }
        if first == '(' {
            self.skip_parentheses();
            return Token::Unknown;
        }
        self.rest = self.rest.get(first.len_utf8()..).unwrap_or_default();
        match first {
            ':' | '-' | '+' | '.' | ')' => Token::Symbol(first as u8),
            _ if super::super::is_space(first) => Token::Space,
            _ => Token::Unknown,
        }
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_parentheses(&mut self) {
        let mut depth = 0_usize;
        let end = self.rest.char_indices().find_map(|(at, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0).then_some(at + c.len_utf8())
        });
        self.rest = end.and_then(|end| self.rest.get(end..)).unwrap_or_default();
    }
}

fn keyword(word: &str) -> Keyword {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let start: String = word.chars().take(3).collect::<String>().to_ascii_lowercase();
    if let Some(month) = (1..)
        .zip(MONTHS)
        .find_map(|(n, name)| (name == start).then_some(n))
    {
        return Keyword::Month(month);
    }
    if word.chars().count() > 3 {
        return Keyword::Other;
    }
    match start.as_str() {
        "am" => Keyword::HalfDay(0),
        "pm" => Keyword::HalfDay(12),
        "z" | "ut" | "utc" | "gmt" => Keyword::Zone(0),
        "edt" => Keyword::Zone(-4),
        "est" | "cdt" => Keyword::Zone(-5),
        "cst" | "mdt" => Keyword::Zone(-6),
        "mst" | "pdt" => Keyword::Zone(-7),
        "pst" => Keyword::Zone(-8),
        "t" => Keyword::TimeSeparator,
        _ => Keyword::Other,
    }
}

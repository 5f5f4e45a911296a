//! Strict primitives over one frame.

use bytes::Bytes;

use super::DecodeError;

/// A cursor over the body of one frame. Running out of bytes is malformed: the frame said that it is complete.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

const SHORT: DecodeError = DecodeError::malformed("the packet ends inside a field");

impl<'a> Reader<'a> {
    /// Reads `chunk` from `at` to `end`, which lies inside it.
    pub(crate) fn over(chunk: &'a Bytes, at: usize, end: usize) -> Self {
        let end = end.min(chunk.len());
        Self {
            frame: chunk,
            at: at.min(end),
            end,
        }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.end - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self
            .at
            .checked_add(count)
            .filter(|end| *end <= self.end)
            .ok_or(SHORT)?;
        let taken = self.frame.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let bytes = self.take(2)?.try_into().map_err(|_| SHORT)?;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?.try_into().map_err(|_| SHORT)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A packet identifier; zero is none.
    pub(crate) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// A variable byte integer in its shortest form.
    pub(crate) fn variable(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(DecodeError::malformed("a variable byte integer that is padded"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::malformed(
            "a variable byte integer of more than four bytes",
        ))
    }

    /// Length-prefixed bytes as a slice of the frame.
    pub(crate) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let count = usize::from(self.u16()?);
        let start = self.at;
        self.take(count)?;
        Ok(self.frame.slice(start..self.at))
    }

    /// A length-prefixed UTF-8 string without NUL.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let count = usize::from(self.u16()?);
        text(self.take(count)?)
    }

    /// A text that names something (a topic, a filter, a client, a user): without control characters, which the
    /// standard lets a server refuse, and which end up in logs and in the names of records. Texts that are content
    /// may have them.
    pub(crate) fn name(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.text()?;
        let control = name.bytes().any(|byte| byte.is_ascii_control())
            || !name.is_ascii() && name.contains(char::is_control);
        if control {
            return Err(DecodeError::malformed("a name with a control character"));
        }
        Ok(name)
    }

    /// The same as a slice of the frame.
    pub(crate) fn name_slice(&mut self) -> Result<(&'a str, Bytes), DecodeError> {
        let start = self.at + 2;
        let name = self.name()?;
        Ok((name, self.frame.slice(start..self.at)))
    }

    /// Everything that is left, as a slice of the frame.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.frame.slice(self.at..self.end);
        self.at = self.end;
        rest
    }

    /// A reader over the next `count` bytes, which this one then has passed.
    pub(crate) fn part(&mut self, count: usize) -> Result<Reader<'a>, DecodeError> {
        let start = self.at;
        self.take(count)?;
        Ok(Reader {
            frame: self.frame,
            at: start,
            end: self.at,
        })
    }

    /// Refuses bytes after the last field.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes after the last field"))
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| DecodeError::malformed("a string that is not UTF-8"))?;
    if bytes.contains(&0) {
        return Err(DecodeError::malformed("a string with the NUL character"));
    }
    Ok(text)
}

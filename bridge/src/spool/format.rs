//! The bytes of a segment: header, progress slots, records. Nothing here touches a file.
//!
//! The picture stands in the module's documentation.

use bytes::{Buf, BufMut, Bytes};

use super::Stored;

/// The first page of a segment; the first record follows it.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 4096;
pub(super) const RECORD_HEADER_BYTES: u64 = 24;
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const NAME_MAX_BYTES: usize = 64;

const SEGMENT_MAGIC: &[u8; 8] = b"SHOPSPOL";
const PROGRESS_MAGIC: &[u8; 4] = b"PROG";
const SECTOR_BYTES: usize = 512;
/// The header stands twice, so that one rotten sector does not take a whole segment with it.
const HEADER_AT: [usize; 2] = [0, 2048];
/// Two slots in turn, so that a torn write leaves the older one.
const PROGRESS_AT: [usize; 2] = [512, 1024];

/// What a segment says of itself; never rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub version: u32,
    /// Starts every checksum of the segment: neither a payload made to look like a record nor the bytes of an
    /// earlier life of a recycled file pass as a record.
    pub salt: u32,
    pub first_sequence: u64,
    pub created_ms: u64,
    /// No byte was written this far or further behind the newest progress slot.
    pub reach_bytes: u64,
    pub gateway_id: String,
}

/// How far a segment was surely durable when this slot was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub generation: u64,
    pub end_offset: u64,
    pub end_sequence: u64,
    /// Ordinal of the next commit.
    pub commit: u32,
    /// Nothing follows.
    pub sealed: bool,
    /// From here to `end_sequence` was in the last commit before a crash: what is missing of it may never have been
    /// acknowledged.
    pub proven_sequence: u64,
}

impl SegmentHeader {
    /// The whole first page, with `progress` in its slot.
    pub(super) fn page(&self, progress: &Progress) -> Vec<u8> {
        let mut sector = Vec::with_capacity(SECTOR_BYTES);
        sector.put_slice(SEGMENT_MAGIC);
        sector.put_u32_le(self.version);
        sector.put_u32_le(self.salt);
        sector.put_u64_le(self.first_sequence);
        sector.put_u64_le(self.created_ms);
        sector.put_u64_le(self.reach_bytes);
        // Names are at most 64 bytes.
        sector.put_u8(self.gateway_id.len() as u8);
        sector.put_slice(self.gateway_id.as_bytes());
        sector.resize(SECTOR_BYTES - 4, 0);
        sector.put_u32_le(crc32c::crc32c(&sector));

        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        for at in HEADER_AT {
            put_at(&mut page, at, &sector);
        }
        put_at(&mut page, progress.offset(), &progress.encode(self.salt));
        page
    }

    /// `None` where neither copy is whole.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        HEADER_AT
            .iter()
            .find_map(|at| Self::parse_sector(page.get(*at..at + SECTOR_BYTES)?))
    }

    /// Of the two.
    pub(super) fn whole_copies(page: &[u8]) -> usize {
        let copies = HEADER_AT.iter().filter_map(|at| page.get(*at..at + SECTOR_BYTES));
        copies.filter_map(Self::parse_sector).count()
    }

    fn parse_sector(sector: &[u8]) -> Option<Self> {
        let (body, mut crc) = sector.split_at_checked(SECTOR_BYTES - 4)?;
        if crc.try_get_u32_le().ok()? != crc32c::crc32c(body) {
            return None;
        }
        let mut rest = body.strip_prefix(SEGMENT_MAGIC)?;
        let version = rest.try_get_u32_le().ok()?;
        let salt = rest.try_get_u32_le().ok()?;
        let first_sequence = rest.try_get_u64_le().ok()?;
        let created_ms = rest.try_get_u64_le().ok()?;
        let reach_bytes = rest.try_get_u64_le().ok()?;
        let name_bytes = usize::from(rest.try_get_u8().ok()?);
        let gateway_id = String::from_utf8(rest.get(..name_bytes)?.to_vec()).ok()?;
        Some(Self {
            version,
            salt,
            first_sequence,
            created_ms,
            reach_bytes,
            gateway_id,
        })
    }
}

impl Progress {
    pub(super) const BYTES: usize = 48;

    /// Where in the first page this generation stands.
    pub(super) fn offset(&self) -> usize {
        let [even, odd] = PROGRESS_AT;
        if self.generation.is_multiple_of(2) {
            even
        } else {
            odd
        }
    }

    pub(super) fn encode(&self, salt: u32) -> [u8; Self::BYTES] {
        let mut slot = [0; Self::BYTES];
        let mut rest = slot.as_mut_slice();
        rest.put_slice(PROGRESS_MAGIC);
        rest.put_u64_le(self.generation);
        rest.put_u64_le(self.end_offset);
        rest.put_u64_le(self.end_sequence);
        rest.put_u32_le(self.commit);
        rest.put_u32_le(u32::from(self.sealed));
        rest.put_u64_le(self.proven_sequence);
        let (body, mut crc) = slot.split_at_mut(Self::BYTES - 4);
        crc.put_u32_le(crc32c::crc32c_append(salt, body));
        slot
    }

    /// The newest slot that is whole.
    pub(super) fn parse(page: &[u8], salt: u32) -> Option<Self> {
        PROGRESS_AT
            .iter()
            .filter_map(|at| Self::parse_slot(page.get(*at..at + Self::BYTES)?, salt))
            .max_by_key(|progress| progress.generation)
    }

    fn parse_slot(slot: &[u8], salt: u32) -> Option<Self> {
        let (body, mut crc) = slot.split_at_checked(Self::BYTES - 4)?;
        if crc.try_get_u32_le().ok()? != crc32c::crc32c_append(salt, body) {
            return None;
        }
        let mut rest = body.strip_prefix(PROGRESS_MAGIC)?;
        Some(Self {
            generation: rest.try_get_u64_le().ok()?,
            end_offset: rest.try_get_u64_le().ok()?,
            end_sequence: rest.try_get_u64_le().ok()?,
            commit: rest.try_get_u32_le().ok()?,
            sealed: rest.try_get_u32_le().ok()? != 0,
            proven_sequence: rest.try_get_u64_le().ok()?,
        })
    }
}

fn put_at(page: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = page.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// What stands before the meta and the payload of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// CRC32C, started with the segment's salt, over the rest of the header, the meta and the payload.
    pub crc: u32,
    pub payload_len: u32,
    pub meta_len: u32,
    /// Ordinal of the commit within its segment. A commit begins only after the one before it is durable, so a
    /// record proves that every earlier commit was.
    pub commit: u32,
    pub sequence: u64,
}

impl RecordHeader {
    pub(super) const BYTES: usize = RECORD_HEADER_BYTES as usize;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut rest = bytes.as_mut_slice();
        rest.put_u32_le(self.crc);
        rest.put_u32_le(self.payload_len);
        rest.put_u32_le(self.meta_len);
        rest.put_u32_le(self.commit);
        rest.put_u64_le(self.sequence);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest: &[u8] = bytes.first_chunk::<{ Self::BYTES }>()?;
        Some(Self {
            crc: rest.try_get_u32_le().ok()?,
            payload_len: rest.try_get_u32_le().ok()?,
            meta_len: rest.try_get_u32_le().ok()?,
            commit: rest.try_get_u32_le().ok()?,
            sequence: rest.try_get_u64_le().ok()?,
        })
    }

    /// Header, meta and payload.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES + u64::from(self.meta_len) + u64::from(self.payload_len)
    }
}

/// What stands at a place where a record is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole record, `bytes` long.
    Record { header: RecordHeader, bytes: usize },
    /// A header with the expected sequence, whose record needs this many bytes from its start.
    Short { needed_bytes: u64 },
    /// No record with one of these sequences.
    Nothing,
}

/// Looks for a record with one of `sequences` at the start of `bytes`.
#[inline]
pub(super) fn record_at(bytes: &[u8], salt: u32, sequences: &std::ops::Range<u64>) -> Found {
    let Some(header) = RecordHeader::parse(bytes) else {
        return Found::Short {
            needed_bytes: RECORD_HEADER_BYTES,
        };
    };
    if !sequences.contains(&header.sequence) {
        return Found::Nothing;
    }
    let needed_bytes = header.record_bytes();
    let record = usize::try_from(needed_bytes)
        .ok()
        .and_then(|needed| bytes.get(..needed));
    let Some(record) = record else {
        return Found::Short { needed_bytes };
    };
    let checked = record.get(4..).unwrap_or_default();
    if crc32c::crc32c_append(salt, checked) != header.crc {
        return Found::Nothing;
    }
    Found::Record {
        header,
        bytes: record.len(),
    }
}

/// The first whole record at or behind `from` with one of `sequences`.
pub(super) fn resync(
    bytes: &[u8],
    from: usize,
    salt: u32,
    sequences: &std::ops::Range<u64>,
) -> Option<(usize, RecordHeader)> {
    (from..bytes.len()).find_map(|at| match record_at(bytes.get(at..)?, salt, sequences) {
        Found::Record { header, .. } => Some((at, header)),
        Found::Short { .. } | Found::Nothing => None,
    })
}

/// The record that [`record_at`] found at `at`, as slices of `bytes`.
pub(super) fn stored_at(bytes: &Bytes, at: usize, header: &RecordHeader) -> Stored {
    let meta_at = at + RecordHeader::BYTES;
    let payload_at = meta_at + header.meta_len as usize;
    Stored {
        sequence: header.sequence,
        meta: bytes.slice(meta_at..payload_at),
        payload: bytes.slice(payload_at..payload_at + header.payload_len as usize),
    }
}

//! Byte layouts: the border where outside bytes become checked types.
//!
//! Every reader returns `None` instead of panicking and no length read from outside leads to an allocation: frames
//! borrow from the packet. All integers are little-endian.

use super::{LANES, Lane, Mark};
use crate::limits;

/// Version of everything in this module; the second byte of every datagram.
pub(super) const VERSION: u8 = 5;
/// First byte of a datagram.
pub(super) const HELLO: u8 = 1;
/// First byte of a datagram.
pub(super) const REPLY: u8 = 2;
/// First byte of a datagram.
pub(super) const CONFIRM: u8 = 3;
/// First byte of a datagram.
pub(super) const PACKET: u8 = 4;
/// Kind, version, link id, counter: in clear, and associated data of the sealed rest.
pub(super) const PACKET_HEADER: usize = 2 + 8 + 8;
/// Bytes of a Poly1305 tag.
pub(super) const SEAL: usize = 16;
/// Ranges in one acknowledgement.
pub(super) const ACK_RANGES_MAX: usize = 32;
/// Bytes of the longest acknowledgement of one lane.
pub(super) const ACK_BYTES_MAX: usize = 1 + 8 + 1 + 4 * ACK_RANGES_MAX;
/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 1 + 8 + Mark::SEAL;
/// Bytes of what says that the sender's process ends.
pub(super) const LEAVING_BYTES: usize = 1;
/// Bytes of the longest data frame without its payload.
pub(super) const DATA_OVERHEAD: usize = 1 + 8 + 4 + 4;

const FRAME_ACK: u8 = 0x10;
const FRAME_FIRST: u8 = 0x20;
const FRAME_NEXT: u8 = 0x30;
const FRAME_MARK: u8 = 0x40;
const FRAME_LEAVING: u8 = 0x50;

/// A position in borrowed bytes.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The clear part of a packet.
#[derive(Clone, Copy)]
pub(super) struct PacketHeader {
    pub link: [u8; 8],
    pub counter: u64,
}

impl PacketHeader {
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[PACKET, VERSION]);
        out.extend_from_slice(&self.link);
        out.extend_from_slice(&self.counter.to_le_bytes());
    }

    /// Reads the header of a datagram whose first two bytes have been looked at.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes.get(2..)?);
        Some(Self { link: reader.array()?, counter: reader.u64()? })
    }
}

/// What an acknowledgement says: everything below `below` arrived, and so did the ranges.
pub(super) struct Ack {
    pub lane: Lane,
    pub below: u64,
    /// First sequence number and how many.
    pub ranges: Vec<(u64, u64)>,
}

/// A frame inside a packet.
pub(super) enum Frame<'a> {
    Ack(Ack),
    /// How far the sender has come in the start that the link is with.
    Mark {
        commits: u64,
        seal: [u8; Mark::SEAL],
    },
    /// The sender's process ends now.
    Leaving,
    Data {
        lane: Lane,
        sequence: u64,
        /// Length of the whole message, on its first fragment.
        total: Option<u32>,
        payload: &'a [u8],
    },
}

fn lane(code: u8) -> Option<Lane> {
    LANES.get(usize::from(code & 0x0f)).copied()
}

impl<'a> Frame<'a> {
    /// Reads the next frame; `None` if the bytes are no frame of this version.
    pub fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let code = reader.u8()?;
        if code == FRAME_MARK {
            return Some(Self::Mark { commits: reader.u64()?, seal: reader.array()? });
        }
        if code == FRAME_LEAVING {
            return Some(Self::Leaving);
        }
        let lane = lane(code)?;
        match code & 0xf0 {
            FRAME_ACK => {
                let below = reader.u64()?;
                let count = usize::from(reader.u8()?);
                if count > ACK_RANGES_MAX {
                    return None;
                }
                let mut ranges = Vec::with_capacity(count);
                for _ in 0..count {
                    let offset = u64::from(reader.u16()?);
                    ranges.push((below.checked_add(offset)?, u64::from(reader.u16()?)));
                }
                Some(Self::Ack(Ack { lane, below, ranges }))
            }
            kind @ (FRAME_FIRST | FRAME_NEXT) => {
                let sequence = reader.u64()?;
                let total = if kind == FRAME_FIRST { Some(reader.u32()?) } else { None };
                let length = usize::try_from(reader.u32()?).ok()?;
                if length > limits::FRAGMENT_BYTES_MAX {
                    return None;
                }
                Some(Self::Data { lane, sequence, total, payload: reader.take(length)? })
            }
            _ => None,
        }
    }
}

/// Reads frames until the end and writes them again: what is read has one encoding.
pub(super) fn reads_frames(bytes: &[u8]) -> bool {
    let mut reader = Reader(bytes);
    let mut again = Vec::new();
    while !reader.0.is_empty() {
        match Frame::read(&mut reader) {
            None => return false,
            Some(Frame::Ack(Ack { lane, below, ranges })) => {
                // Reading has checked that both fit.
                let small = |(first, count): (u64, u64)| ((first - below) as u16, count as u16);
                let ranges: Vec<(u16, u16)> = ranges.into_iter().map(small).collect();
                write_ack(&mut again, lane, below, &ranges);
            }
            Some(Frame::Mark { commits, seal }) => write_mark(&mut again, commits, &seal),
            Some(Frame::Leaving) => write_leaving(&mut again),
            Some(Frame::Data { lane, sequence, total, payload }) => {
                write_data(&mut again, lane, sequence, total, payload);
            }
        }
    }
    assert!(again == bytes, "a frame has two encodings");
    true
}

pub(super) fn write_ack(out: &mut Vec<u8>, lane: Lane, below: u64, ranges: &[(u16, u16)]) {
    out.push(FRAME_ACK | lane.code());
    out.extend_from_slice(&below.to_le_bytes());
    let ranges = &ranges[..ranges.len().min(ACK_RANGES_MAX)];
    out.push(ranges.len() as u8);
    for (offset, count) in ranges {
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
}

pub(super) fn write_mark(out: &mut Vec<u8>, commits: u64, seal: &[u8; Mark::SEAL]) {
    out.push(FRAME_MARK);
    out.extend_from_slice(&commits.to_le_bytes());
    out.extend_from_slice(seal);
}

pub(super) fn write_leaving(out: &mut Vec<u8>) {
    out.push(FRAME_LEAVING);
}

pub(super) fn write_data(out: &mut Vec<u8>, lane: Lane, sequence: u64, total: Option<u32>, payload: &[u8]) {
    out.push(lane.code() | if total.is_some() { FRAME_FIRST } else { FRAME_NEXT });
    out.extend_from_slice(&sequence.to_le_bytes());
    if let Some(total) = total {
        out.extend_from_slice(&total.to_le_bytes());
    }
    // A payload is at most FRAGMENT_BYTES_MAX.
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

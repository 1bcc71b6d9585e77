//! Bytes of frames and handshakes that must stay what they are: see `codecs`.

use super::{
    LANES, Mark, handshake,
    wire::{self, PacketHeader},
};
use crate::Incarnation;

pub(crate) fn golden() -> Vec<(&'static str, Vec<u8>)> {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    let mark = Mark::of(&handshake::tests::node(1).0, Incarnation([3; 16]), 9);
    let [hello, reply, confirm] = handshake::tests::said();
    vec![
        ("header of a packet", written(&|out| PacketHeader { link: [1; 8], counter: 300 }.write(out))),
        ("frame of an acknowledgement", written(&|out| wire::write_ack(out, LANES[1], 5, &[(2, 1), (300, 2)]))),
        ("frame of a first fragment", written(&|out| wire::write_data(out, LANES[2], 7, Some(70_000), b"first"))),
        ("frame of a fragment", written(&|out| wire::write_data(out, LANES[0], 8, None, b"next"))),
        ("frame of a mark", written(&|out| wire::write_mark(out, 9, mark.seal()))),
        ("frame of an end", written(&|out| wire::write_leaving(out))),
        ("hello", hello),
        ("reply", reply),
        ("confirmation", confirm),
    ]
}

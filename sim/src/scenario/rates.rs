//! What is always a little broken, and how slow things are.

use serde::{Deserialize, Serialize};

use super::{MILLISECOND, Profile};
use crate::dice::Dice;

/// Rates that hold throughout the first phase. In thousandths unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Datagrams lost.
    pub loss: u64,
    /// Datagrams lost after healing.
    pub healed_loss: u64,
    /// Datagrams delivered twice.
    pub duplicate: u64,
    /// Datagrams of which a copy with a flipped bit is delivered as well.
    pub corrupt: u64,
    /// Datagrams after which an old one is delivered again.
    pub replay: u64,
    /// Datagrams that take twenty times as long.
    pub late: u64,
    /// Least and most microseconds of a datagram's way.
    pub latency: (u64, u64),
    /// Settlements that the queue never sees.
    pub settlement_lost: u64,
    /// Acknowledgements of publications that get lost.
    pub publication_lost: u64,
    /// Deliveries that never arrive.
    pub delivery_lost: u64,
    /// Requests that vanish from the queue although their clients were told that they are in it.
    #[serde(default)]
    pub request_lost: u64,
    /// Most microseconds of a write until it is durable.
    pub write: u64,
    /// Most microseconds of a computation.
    pub compute: u64,
}

impl Rates {
    /// Nothing breaks by itself.
    pub(super) fn quiet() -> Self {
        Self {
            loss: 0,
            healed_loss: 0,
            duplicate: 0,
            corrupt: 0,
            replay: 0,
            late: 0,
            latency: (200, 2 * MILLISECOND),
            settlement_lost: 0,
            publication_lost: 0,
            delivery_lost: 0,
            request_lost: 0,
            write: MILLISECOND,
            compute: MILLISECOND,
        }
    }
}

pub(super) fn draw_rates(dice: &mut Dice, profile: Profile) -> Rates {
    // Half of all runs have a tidy network, so that crashes are seen without its noise.
    let noisy = dice.chance(0.5);
    let mut rate = |most: u64| if noisy && dice.chance(0.6) { dice.skewed(1, most) } else { 0 };
    let (loss, duplicate, corrupt, replay, late) = (rate(200), rate(200), rate(30), rate(50), rate(100));
    let (settlement_lost, publication_lost, delivery_lost) = (rate(300), rate(300), rate(200));
    let least = dice.between(100, 2_000);
    let compute = match profile {
        Profile::Small => 500 * MILLISECOND,
        _ => 100 * MILLISECOND,
    };
    Rates {
        loss,
        healed_loss: 0,
        duplicate,
        corrupt,
        replay,
        late,
        latency: (least, least + dice.skewed(100, 50 * MILLISECOND)),
        settlement_lost,
        publication_lost,
        delivery_lost,
        request_lost: 0,
        write: dice.skewed(100, 20 * MILLISECOND),
        compute: dice.skewed(100, compute),
    }
}

//! Ports, the driver that binds the core to them, and the adapters.
//!
//! [`ports`] says what the core needs of the world; [`driver`] is the one loop that moves inputs in and outputs out.
//! Each adapter is a feature of its own, so that a simulator can leave all of them out.

pub mod driver;
pub mod notice;
pub mod ports;

#[cfg(feature = "tokio")]
pub mod clock;
#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "fjall")]
pub mod fjall;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "workers")]
pub mod workers;

#[cfg(all(test, any(feature = "nats", feature = "consul")))]
mod test_servers;

//! Every success that is published carries the signatures that clients may demand, as a client checks them: those of
//! `t` nodes over a signature, those of all over a new wallet.

use mpcium_client::{
    attest::Attesters,
    result::{KeygenResult, SigningResult},
};

use super::{Fact, Invariant};
use crate::world::{Answer, World};

#[derive(Default)]
pub(super) struct Attested {
    /// What a client knows of the cluster: who its nodes are, and how many must have signed a signature and a wallet.
    client: Option<(Attesters, Attesters)>,
}

impl Invariant for Attested {
    fn name(&self) -> &'static str {
        "attested"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Answer { node, answer } = fact else { return Ok(()) };
        if !answer.success {
            return Ok(());
        }
        let (signatures, wallets) = match &self.client {
            Some(client) => client,
            None => self.client.insert(client(world)?),
        };
        let checked =
            if answer.transaction.is_empty() { wallet(wallets, answer) } else { signature(signatures, answer) };
        checked.map_err(|what| format!("node{node} answered {} {}: {what}", answer.wallet, answer.transaction))
    }
}

fn client(world: &World) -> Result<(Attesters, Attesters), String> {
    let keys: Vec<_> = world.machines.iter().map(|machine| (machine.id.to_string(), machine.public_key())).collect();
    let knows = |demands: usize| Attesters::new(keys.clone(), demands).map_err(|error| error.to_string());
    Ok((knows(world.scenario.threshold)?, knows(world.scenario.nodes)?))
}

fn signature(client: &Attesters, answer: &Answer) -> Result<(), String> {
    let result = SigningResult::from_json(&answer.raw).map_err(|error| error.to_string())?;
    client.check(&result).map_err(|error| error.to_string())
}

fn wallet(client: &Attesters, answer: &Answer) -> Result<(), String> {
    let result = KeygenResult::from_json(&answer.raw).map_err(|error| error.to_string())?;
    client.check(&result).map_err(|error| error.to_string())
}

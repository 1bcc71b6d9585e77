//! No share of work without the initiator's signature: what he did not sign never succeeds, is never signed, and no
//! protocol ever runs for it.

use std::collections::BTreeSet;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct AuthorizedWork {
    /// Messages that the initiator wants signed.
    messages: BTreeSet<Vec<u8>>,
    /// Wallets that the initiator wants.
    wallets: BTreeSet<String>,
    /// Requests of his.
    requests: BTreeSet<(String, String)>,
}

impl Invariant for AuthorizedWork {
    fn name(&self) -> &'static str {
        "authorized_work"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Sent { request } if request.honest => {
                self.messages.insert(request.message.clone());
                self.requests.insert((request.wallet.clone(), request.transaction.clone()));
                if request.curve.is_none() {
                    self.wallets.insert(request.wallet.clone());
                }
            }
            Fact::Signing { message } if !self.messages.contains(*message) => {
                return Err(format!("somebody signs what the initiator did not ask for: {}", hex::encode(message)));
            }
            Fact::Answer { answer, .. } if answer.success => {
                let request = (answer.wallet.clone(), answer.transaction.clone());
                if !self.requests.contains(&request) {
                    return Err(format!("{} {} succeeded without the initiator", request.0, request.1));
                }
            }
            Fact::Report { node, report: Report::SessionStarted { wallet, protocol, .. }, .. }
                if !wallet.is_empty() && !self.wallets.contains(wallet) =>
            {
                return Err(format!("node{node} runs {protocol} for {wallet}, which the initiator never asked for"));
            }
            Fact::Report { node, report: Report::WalletActivated { wallet, .. }, .. }
                if !self.wallets.contains(wallet) =>
            {
                return Err(format!("node{node} activated {wallet}, which the initiator never asked for"));
            }
            _ => {}
        }
        Ok(())
    }
}

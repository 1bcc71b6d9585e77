//! Clients that sign: single requests that are verified, batches, and steady load while something else happens.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use mpcium_client::{
    KeyType, MessageHash, SignRequest, SigningResult,
    client::{Client, ClientError},
};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::{verify::Wallet, wait};

/// How long a client waits for an answer: longer than the cluster takes to give up.
pub const ANSWER_MAX: Duration = Duration::from_secs(240);

/// How long a load may take to get on.
const PROGRESS_MAX: Duration = Duration::from_secs(150);

/// Who signs with which wallet.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The client.
    pub client: Client,
    /// The wallet.
    pub wallet: Wallet,
}

/// A message that is to be signed.
#[derive(Clone, Debug)]
pub struct Order {
    /// On which curve.
    pub key_type: KeyType,
    /// The request's id.
    pub tx_id: String,
    /// The message; on secp256k1 its SHA-256 is signed.
    pub message: Vec<u8>,
}

impl Order {
    /// An order with a fresh id.
    #[must_use]
    pub fn new(key_type: KeyType) -> Self {
        let tx_id = uuid::Uuid::new_v4().to_string();
        let message = format!("message of {tx_id}").into_bytes();
        Self { key_type, tx_id, message }
    }

    /// What is signed on secp256k1.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.message).into()
    }

    /// The request's document.
    #[must_use]
    pub fn request(&self, wallet: &Wallet) -> SignRequest {
        let tx = match self.key_type {
            KeyType::Secp256k1 => self.digest().to_vec(),
            KeyType::Ed25519 => self.message.clone(),
        };
        SignRequest {
            key_type: self.key_type.as_str().to_owned(),
            wallet_id: wallet.id.clone(),
            network_internal_code: "test".to_owned(),
            tx_id: self.tx_id.clone(),
            tx: Some(tx),
            ..SignRequest::default()
        }
    }
}

impl Asker {
    /// Asks for a signature and returns whatever the cluster answers.
    ///
    /// # Errors
    /// The cluster's refusal, or that there was no answer.
    pub async fn ask(&self, order: &Order) -> Result<SigningResult, ClientError> {
        self.client.sign_and_wait(order.request(&self.wallet), ANSWER_MAX).await
    }

    /// Asks for a signature and verifies it.
    ///
    /// # Errors
    /// If there is none, or it does not verify.
    pub async fn sign(&self, order: &Order) -> Result<SigningResult, String> {
        let result = self.ask(order).await.map_err(|error| format!("{}: {error}", order.tx_id))?;
        if (result.tx_id.as_str(), result.wallet_id.as_str()) != (order.tx_id.as_str(), self.wallet.id.as_str()) {
            return Err(format!("{}: the answer is for {} of {}", order.tx_id, result.tx_id, result.wallet_id));
        }
        match order.key_type {
            KeyType::Secp256k1 => self.wallet.verify_ecdsa(&order.digest(), &result)?,
            KeyType::Ed25519 => self.wallet.verify_ed25519(&order.message, &result)?,
        }
        Ok(result)
    }

    /// Asks for a signature over the whole message, which the nodes hash with SHA-256, and verifies it.
    ///
    /// # Errors
    /// As [`Asker::sign`].
    pub async fn sign_message(&self, order: &Order) -> Result<SigningResult, String> {
        let request = order.request(&self.wallet).with_message(MessageHash::Sha256, order.message.clone());
        let result = self.client.sign_and_wait(request, ANSWER_MAX).await;
        let result = result.map_err(|error| format!("{}: {error}", order.tx_id))?;
        self.wallet.verify_ecdsa(&order.digest(), &result)?;
        Ok(result)
    }

    /// Signs on a curve with a fresh id, and verifies.
    ///
    /// # Errors
    /// As [`Asker::sign`].
    pub async fn sign_new(&self, key_type: KeyType) -> Result<SigningResult, String> {
        self.sign(&Order::new(key_type)).await
    }

    /// Signs all orders, `in_flight` at a time, counting those that are done in `done`.
    ///
    /// # Errors
    /// Every order that was not answered with a good signature.
    pub async fn sign_all(&self, orders: &[Order], in_flight: usize, done: &AtomicUsize) -> Result<(), String> {
        let failures: Vec<String> = stream::iter(orders)
            .map(|order| async move {
                let outcome = self.sign(order).await;
                done.fetch_add(1, Ordering::SeqCst);
                outcome.err()
            })
            .buffer_unordered(in_flight)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if failures.is_empty() {
            return Ok(());
        }
        Err(format!("{} of {} orders failed:\n  {}", failures.len(), orders.len(), failures.join("\n  ")))
    }

    /// Begins to sign on and on: so many requests in flight on each curve.
    #[must_use]
    pub fn load(&self, ed25519: usize, secp256k1: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let kinds = [(KeyType::Ed25519, ed25519), (KeyType::Secp256k1, secp256k1)];
        let tasks = kinds.into_iter().flat_map(|(key_type, number)| std::iter::repeat_n(key_type, number));
        let tasks = tasks
            .map(|key_type| {
                let (asker, stop, answered) = (self.clone(), stop.clone(), answered.clone());
                let failures = failures.clone();
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        if let Err(failure) = asker.sign_new(key_type).await {
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                            return;
                        }
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        Load { stop, answered, failures, tasks }
    }
}

/// Steady load; ends when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Requests that have been answered with a good signature so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many more have been answered.
    ///
    /// # Errors
    /// If they are not in time, or a request has failed.
    pub async fn progress(&self, more: usize, while_what: &str) -> Result<(), String> {
        let enough = self.answered() + more;
        let enough_or_failed = || {
            let answered = self.answered();
            let over = answered >= enough || self.failed().is_err();
            if over { Ok(()) } else { Err(format!("{answered} of {enough}")) }
        };
        wait::until_sync(&format!("{more} more signatures {while_what}"), PROGRESS_MAX, enough_or_failed).await?;
        self.failed().map_err(|failures| format!("{while_what}: {failures}"))
    }

    fn failed(&self) -> Result<(), String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
    }

    /// Asks for no more, waits for what has been asked for, and returns how many requests were answered.
    ///
    /// # Errors
    /// If any request was not answered with a good signature.
    pub async fn finish(mut self) -> Result<usize, String> {
        self.stop.store(true, Ordering::SeqCst);
        for task in std::mem::take(&mut self.tasks) {
            task.await.map_err(|error| format!("a client ended: {error}"))?;
        }
        self.failed()?;
        Ok(self.answered())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

//! Networks' secrets, which their nodes derive preshared keys of: made here, kept in the store, given to
//! the network's own nodes and to nobody else. [`follow`] keeps what the replica tells its agents.
//!
//! A network has at most two: the present one, and the one before it until no live node goes by that any
//! more. Which one two nodes use with each other, their entries say.

pub mod follow;
mod standing;

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{Generation, NetworkName, NetworkSecret};
use wattle_proto::{Invalid as _, InvalidField, store as proto, sync};
use wattle_runtime::clock;

pub use self::{follow::Secrets, standing::Standing};
use crate::store::{Store, StoreError, Stored, Transaction, keys};

/// A network's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSecrets {
    /// The last one ever made.
    made: Generation,
    given: BTreeMap<Generation, Given>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    /// `None` where preshared keys were turned off with it.
    secret: Option<NetworkSecret>,
    made_at: SystemTime,
}

impl NetworkSecrets {
    /// The newest that nodes are given; `None` where the network never had preshared keys.
    pub fn present(&self) -> Option<Generation> {
        self.given.last_key_value().map(|(generation, _)| *generation)
    }

    /// When that was made.
    pub fn made_at(&self) -> Option<SystemTime> {
        self.given.last_key_value().map(|(_, given)| given.made_at)
    }

    /// Whether nodes are given the one before it, too.
    pub fn has_former(&self) -> bool {
        self.given.len() > 1
    }

    /// With another one, and the present one beside it.
    pub fn renewed(&self, now: SystemTime) -> Self {
        self.followed_by(Some(NetworkSecret::new(rand::random())), now)
    }

    /// With a generation that has no secret, and the present one beside it: nodes come to it as to any
    /// other, so that those who don't hear of it stay as they are with the others.
    pub fn ended(&self, now: SystemTime) -> Self {
        self.followed_by(None, now)
    }

    fn followed_by(&self, secret: Option<NetworkSecret>, now: SystemTime) -> Self {
        let made = Generation(self.made.0 + 1);
        let mut given = self.settled().given;
        given.insert(made, Given { secret, made_at: now });
        Self { made, given }
    }

    /// With the present one alone.
    pub fn settled(&self) -> Self {
        let present = self.given.last_key_value().map(|(n, given)| (*n, given.clone()));
        Self { made: self.made, given: present.into_iter().collect() }
    }

    /// As agents are told them.
    pub fn told(&self) -> Vec<sync::NetworkSecret> {
        let told = self.given.iter().map(|(generation, given)| sync::NetworkSecret {
            generation: generation.0,
            secret: bytes(given),
        });
        told.collect()
    }

    /// Reads what [`NetworkSecrets::encode`] wrote. An error says nothing of what it read.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let record = proto::NetworkSecrets::decode(bytes).field("secret")?;
        let given = record.secrets.iter().map(|one| {
            let secret = (!one.secret.is_empty())
                .then(|| <[u8; 32]>::try_from(one.secret.as_ref()))
                .transpose()
                .map_err(|_| "not 32 bytes")
                .field("secret.secret")?
                .map(NetworkSecret::new);
            let made_at = clock::from_unix_millis(one.made_at_millis);
            Ok((Generation(one.generation), Given { secret, made_at }))
        });
        let given = given.collect::<Result<_, InvalidField>>()?;
        Ok(Self { made: Generation(record.generation), given })
    }

    /// Its bytes in the store.
    pub fn encode(&self) -> Bytes {
        let secrets = self.given.iter().map(|(generation, given)| proto::NetworkSecret {
            generation: generation.0,
            secret: bytes(given),
            made_at_millis: clock::unix_millis(given.made_at),
        });
        let secrets = secrets.collect();
        proto::NetworkSecrets { generation: self.made.0, secrets }.encode_to_vec().into()
    }
}

fn bytes(given: &Given) -> Bytes {
    let secret = given.secret.as_ref();
    secret.map_or_else(Bytes::new, |secret| Bytes::copy_from_slice(secret.expose_bytes()))
}

/// A network's secrets as they were read, be there none.
#[derive(Debug, Clone)]
pub struct ReadSecrets {
    network: NetworkName,
    stored: Option<Stored>,
    /// What there is.
    pub secrets: NetworkSecrets,
}

impl ReadSecrets {
    /// Reads them.
    pub async fn of(store: &dyn Store, network: &NetworkName) -> Result<Self, StoreError> {
        let stored = store.get(&keys::secret(network)).await?;
        let secrets = stored.as_ref().map_or_else(|| Ok(NetworkSecrets::default()), read)?;
        Ok(Self { network: network.clone(), stored, secrets })
    }

    /// Writes others instead, where they are as they were read.
    pub fn write(&self, next: &NetworkSecrets) -> Transaction {
        let key = keys::secret(&self.network);
        let transaction = Transaction::default().as_read(key.clone(), self.stored.as_ref());
        transaction.put(key, next.encode())
    }

    /// Deletes all that is known of them, together with the network.
    pub fn forget(&self) -> Transaction {
        let key = keys::secret(&self.network);
        let transaction = Transaction::default().as_read(key.clone(), self.stored.as_ref());
        if self.stored.is_some() { transaction.delete(key) } else { transaction }
    }
}

fn read(stored: &Stored) -> Result<NetworkSecrets, StoreError> {
    NetworkSecrets::decode(&stored.value)
        .map_err(|error| StoreError::Corrupt(format!("{}: {error}", stored.key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        clock::from_unix_millis(seconds * 1000)
    }

    fn generations(secrets: &NetworkSecrets) -> Vec<u64> {
        secrets.told().iter().map(|told| told.generation).collect()
    }

    #[test]
    fn there_are_two_at_most_and_no_number_comes_twice() {
        let first = NetworkSecrets::default().renewed(at(1));
        assert_eq!((generations(&first), first.has_former()), (vec![1], false));
        let second = first.renewed(at(2));
        assert_eq!((generations(&second), second.has_former()), (vec![1, 2], true));
        assert_eq!(second.told()[0], first.told()[0], "it is the same secret");
        assert_ne!(second.told()[1].secret, second.told()[0].secret);
        assert_eq!(generations(&second.renewed(at(3))), [2, 3]);
        assert_eq!(generations(&second.settled()), [2]);
        let ended = second.ended(at(4));
        assert_eq!(generations(&ended), [2, 3]);
        assert_eq!((ended.told()[0].secret.len(), ended.told()[1].secret.len()), (32, 0));
        let again = ended.settled().renewed(at(5));
        assert_eq!((generations(&again), again.made_at()), (vec![3, 4], Some(at(5))));
    }

    #[test]
    fn records_round_trip_and_never_print() {
        let secrets = NetworkSecrets::default().renewed(at(1)).ended(at(2));
        assert_eq!(NetworkSecrets::decode(&secrets.encode()).unwrap(), secrets);
        let shown = format!("{secrets:?}");
        assert!(shown.contains("NetworkSecret(redacted)") && !shown.contains("secret: ["));
        let mut record = proto::NetworkSecrets::decode(secrets.encode()).unwrap();
        record.secrets[0].secret = Bytes::from_static(b"short and secret");
        let error = NetworkSecrets::decode(&record.encode_to_vec()).unwrap_err().to_string();
        assert_eq!(error, "secret.secret: not 32 bytes");
    }
}

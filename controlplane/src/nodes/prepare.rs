//! An enrolment's checks. They only read; the transaction that follows compares what was read, so
//! that a check can't be outrun.

use std::time::SystemTime;

use wattle_model::{
    Endpoint, Fingerprint, History, Mtu, NetworkName, NodeId, NodeName, PublicKey, Revision,
    TokenId, TokenSecret,
};
use wattle_proto::record::{NetworkBody, decode_history};

use super::{
    addresses::Ranges,
    record::{Claim, NodeRecord},
    refused::Refused,
    token::Token,
};
use crate::store::{Key, Store, StoreError, Stored, keys};

/// Names that are tried for a node that wishes for none.
const NAMES: usize = 8;

/// What a machine asks for, taken apart and well-formed.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The token.
    pub token: TokenId,
    /// Proves the right to use it.
    pub secret: TokenSecret,
    /// The certificate key, which a signing request has proved.
    pub fingerprint: Fingerprint,
    /// The WireGuard key.
    pub public_key: PublicKey,
    /// The name wished for.
    pub name: Option<NodeName>,
    /// Its own endpoint candidates.
    pub endpoints: Vec<Endpoint>,
    /// The one that the control plane saw.
    pub observed: Option<Endpoint>,
    /// The pin of the root that will sign its certificate.
    pub root: Fingerprint,
}

/// A node that exists, and where.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its id.
    pub node: NodeId,
    /// All else that is known of it.
    pub record: NodeRecord,
    /// Its network's ranges.
    pub ranges: Ranges,
    /// Its network's MTU.
    pub mtu: Option<Mtu>,
    /// The revision at which it was made.
    pub revision: Revision,
}

/// What the checks found.
pub(super) enum Prepared {
    /// The machine is a node already: this is a repetition.
    Already(Box<Enrolled>),
    /// It may become one.
    New(Box<Candidate>),
}

/// A node that passed every check and lacks nothing but an address.
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) name: NodeName,
    pub(super) token: Token,
    pub(super) network: Network,
}

/// A network, as it was read.
pub(super) struct Network {
    pub(super) name: NetworkName,
    pub(super) stored: Stored,
    pub(super) ranges: Ranges,
    pub(super) mtu: Option<Mtu>,
}

/// Checks everything that can be checked without writing.
pub(super) async fn prepare(
    store: &dyn Store,
    wish: &Enrolment,
    now: SystemTime,
) -> Result<Prepared, Refused> {
    let token = token(store, wish).await?;
    let network = network(store, &token.network).await?;
    // Before the token's limits: the repetition of its last use is still the same use.
    if let Some(enrolled) = repetition(store, wish, &network).await? {
        return Ok(Prepared::Already(Box::new(enrolled)));
    }
    token.usable(now)?;
    match claim(store, &keys::wireguard_key(wish.public_key)).await? {
        Some((Claim { released: true, .. }, _)) => {
            return Err(Refused::KeyReleased("wireguard_public_key"));
        }
        Some(_) => return Err(Refused::PublicKeyTaken),
        None => {}
    }
    let wished = token.name.as_ref().or(wish.name.as_ref());
    let (node, name) = named(store, &network.name, wished).await?;
    Ok(Prepared::New(Box::new(Candidate { node, name, token, network })))
}

/// The token, if the machine knows its secret.
pub(super) async fn token(store: &dyn Store, wish: &Enrolment) -> Result<Token, Refused> {
    Token::proven(store.get(&keys::join_token(wish.token)).await?, &wish.secret)
}

/// The node that this very request made before, if it did.
async fn repetition(
    store: &dyn Store,
    wish: &Enrolment,
    network: &Network,
) -> Result<Option<Enrolled>, Refused> {
    let claimed = claim(store, &keys::fingerprint(wish.fingerprint)).await?;
    let Some((claim, revision)) = claimed else { return Ok(None) };
    if claim.released {
        return Err(Refused::KeyReleased("csr"));
    }
    let key = keys::identity(claim.node);
    // Deleted between the two reads.
    let Some(stored) = store.get(&key).await? else { return Err(Refused::Contended) };
    let record = NodeRecord::decode(&stored.value)
        .map_err(|error| StoreError::Corrupt(format!("{key}: {error}")))?;
    if record.deleted_at.is_some() {
        return Err(Refused::KeyReleased("csr"));
    }
    if record.token != wish.token {
        return Err(Refused::KeyTaken);
    }
    if record.public_key != wish.public_key {
        return Err(Refused::OtherPublicKey);
    }
    let Network { ranges, mtu, .. } = *network;
    Ok(Some(Enrolled { node: claim.node, record, ranges, mtu, revision }))
}

async fn network(store: &dyn Store, name: &NetworkName) -> Result<Network, Refused> {
    let gone = || Refused::NetworkGone(name.clone());
    let stored = store.get(&keys::network(name)).await?.ok_or_else(gone)?;
    let corrupt = |error| StoreError::Corrupt(format!("network {name}: {error}"));
    let history: History<NetworkBody> =
        decode_history(&stored.value, stored.modified).map_err(corrupt)?;
    let body = history.present().body.as_ref().ok_or_else(gone)?;
    let ranges = Ranges::of(body).map_err(corrupt)?;
    Ok(Network { name: name.clone(), ranges, mtu: body.mtu, stored })
}

/// A new id, and the name that goes with it.
async fn named(
    store: &dyn Store,
    network: &NetworkName,
    wished: Option<&NodeName>,
) -> Result<(NodeId, NodeName), Refused> {
    for _ in 0..NAMES {
        let node = NodeId::new(rand::random());
        let name = wished.cloned().unwrap_or_else(|| default_name(node));
        if claim(store, &keys::name(network, &name)).await?.is_none() {
            return Ok((node, name));
        }
        if wished.is_some() {
            return Err(Refused::NameTaken { name, network: network.clone() });
        }
    }
    Err(Refused::Contended)
}

fn default_name(node: NodeId) -> NodeName {
    let hex = node.to_string();
    format!("node-{}", &hex[..8]).parse().expect("hex digits make a name")
}

/// Who holds a key, and since which revision.
pub(super) async fn claim(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<(Claim, Revision)>, StoreError> {
    let Some(stored) = store.get(key).await? else { return Ok(None) };
    let claim = Claim::decode(&stored.value)
        .map_err(|error| StoreError::Corrupt(format!("{key}: {error}")))?;
    Ok(Some((claim, stored.modified)))
}

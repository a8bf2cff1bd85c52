//! The certificate authority as operators see and change it: which roots there are, who has
//! certificates of which, a new root beside the old one, and the end of the old one.

use std::{collections::HashMap, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use tonic::Status;
use wattle_certs::{Root, root_of};
use wattle_model::{Fingerprint, NodeId};
use wattle_proto::{admin, store as record};
use wattle_runtime::clock;

use super::{
    error::Field as _, error::invalid, mutation::Planned, operators, records, session::Agents,
};
use crate::{
    authority::Roots,
    nodes::{NodeRecord, store_failed},
    replicas::Presence,
    store::{Store, StoreError, Stored, Transaction, keys},
};

/// Those named who are behind.
const NAMED: usize = 100;
/// Those named in a refusal, which people read.
const NAMED_IN_REFUSAL: usize = 10;

/// How everything stands.
pub(super) async fn get(agents: &Agents, now: SystemTime) -> Result<admin::GetCaResponse, Status> {
    let store = &*agents.replica.store;
    let (_, record, roots) = load(store).await?;
    let own = agents.replica.ca().pin();
    let mut holders = Holders::count(agents, &roots, now).await?;
    for holder in &mut holders.behind {
        holder.shown.online = holder
            .node
            .is_some_and(|node| agents.sessions.info(node).is_some_and(|session| session.online));
    }
    let shown = |(root, trusted): (&CertificateDer<'static>, bool)| {
        holders.shown(&roots, root, trusted, own, now)
    };
    let trusted = roots.trusted().iter().map(|root| (root, true));
    let retired = roots.retired().iter().map(|root| (root, false));
    let all = retired.chain(trusted).map(shown).collect::<Result<Vec<_>, StoreError>>();
    Ok(admin::GetCaResponse {
        trust_domain: record.trust_domain,
        roots: all.map_err(store_failed)?,
        behind_count: u32::try_from(holders.behind_count).unwrap_or(u32::MAX),
        behind: holders.behind.into_iter().map(|holder| holder.shown).collect(),
    })
}

/// One more root. An older one vouches for it, so nobody adds one who doesn't have the CA's key.
pub(super) async fn plan_trust(
    store: &dyn Store,
    request: &admin::TrustRootRequest,
    now: SystemTime,
) -> Result<Planned<admin::TrustRootResponse>, Status> {
    let (stored, mut record, roots) = load(store).await?;
    let certificate = CertificateDer::from(request.certificate.to_vec());
    let cross = CertificateDer::from(request.cross_certificate.to_vec());
    let root = Root::of(&certificate).in_field("certificate")?;
    let answer = admin::TrustRootResponse::default();
    if roots.find(root.pin).is_some() {
        return Ok(Planned::nothing(Transaction::default().unchanged(&stored), answer));
    }
    if roots.trusted().len() > 1 {
        return Err(Status::failed_precondition(
            "certificate: another root is taking the old one's place: finish that rotation first",
        ));
    }
    if !root.is_self_issued || root.not_after <= now {
        return Err(invalid("certificate", "not a root that is good now"));
    }
    let vouched = Root::of(&cross).in_field("cross_certificate")?;
    let signer = root_of(&cross, roots.trusted());
    if vouched.pin != root.pin || vouched.subject != root.subject || signer.is_none() {
        let why = "it doesn't show that the present root vouches for the new one";
        return Err(invalid("cross_certificate", why));
    }
    let Some(with) = roots.with(certificate, cross) else { return Ok(Planned::settled(answer)) };
    with.write(&mut record);
    let transaction = Transaction::default().replace(&stored, record.encode_to_vec().into());
    Ok(Planned { transaction, answer })
}

/// The end of every root older than the one that signs, or of every newer one.
pub(super) async fn plan_retire(
    agents: &Agents,
    request: &admin::RetireRootsRequest,
    now: SystemTime,
) -> Result<Planned<admin::RetireRootsResponse>, Status> {
    let store = &*agents.replica.store;
    let (stored, mut record, roots) = load(store).await?;
    let answer = admin::RetireRootsResponse::default();
    let left = if request.newer { roots.give_up() } else { roots.retire(now) };
    let Some(left) = left else {
        return match (roots.trusted().len(), request.newer) {
            (1, _) => Ok(Planned::nothing(Transaction::default().unchanged(&stored), answer)),
            (_, true) => Err(Status::failed_precondition(
                "the new root signs already, and there is no way back: finish this rotation, then \
                 begin another one",
            )),
            (_, false) => Err(Status::failed_precondition(
                "the new root signs nothing yet: give its key to every replica first",
            )),
        };
    };
    if !request.newer {
        refuse_early(agents, &roots, request.force, now).await?;
    }
    let gone = roots.trusted().iter().filter(|root| !left.trusted().contains(root));
    let pins = gone.filter_map(|root| Root::of(root).ok());
    let retired_pins = pins.map(|root| Bytes::copy_from_slice(root.pin.as_bytes())).collect();
    left.write(&mut record);
    let transaction = Transaction::default().replace(&stored, record.encode_to_vec().into());
    Ok(Planned { transaction, answer: admin::RetireRootsResponse { retired_pins, ..answer } })
}

/// While somebody still needs an older root, it stays.
async fn refuse_early(
    agents: &Agents,
    roots: &Roots,
    force: bool,
    now: SystemTime,
) -> Result<(), Status> {
    if agents.replica.ca().pin() != roots.signing() {
        return Err(Status::failed_precondition(
            "this replica still signs with an older root: give it the new one's key first",
        ));
    }
    let holders = Holders::count(agents, roots, now).await?;
    match holders.behind_count > 0 && !force {
        true => Err(Status::failed_precondition(holders.refusal())),
        false => Ok(()),
    }
}

async fn load(store: &dyn Store) -> Result<(Stored, record::Cluster, Roots), Status> {
    let key = keys::cluster();
    let corrupt = |what: String| store_failed(StoreError::Corrupt(format!("{key}: {what}")));
    let stored = store.get(&key).await.map_err(store_failed)?;
    let stored = stored.ok_or_else(|| corrupt("missing".into()))?;
    let record = record::Cluster::decode(stored.value.clone());
    let record = record.map_err(|error| corrupt(error.to_string()))?;
    let roots = Roots::read(&record).map_err(|error| corrupt(error.to_string()))?;
    Ok((stored, record, roots))
}

/// Who lives and has a certificate of which root, as the records say.
#[derive(Default)]
struct Holders {
    nodes: HashMap<Fingerprint, u32>,
    operators: HashMap<Fingerprint, u32>,
    tokens: HashMap<Fingerprint, u32>,
    replicas: HashMap<Fingerprint, u32>,
    behind: Vec<Holder>,
    behind_count: usize,
}

struct Holder {
    node: Option<NodeId>,
    shown: admin::RootHolder,
}

impl Holders {
    /// Those come first who have something to do by hand: not all may be named.
    async fn count(agents: &Agents, roots: &Roots, now: SystemTime) -> Result<Self, Status> {
        let (replica, mut holders) = (&agents.replica, Self::default());
        let store = &*replica.store;
        // Where it is alone it tells nobody of itself.
        holders.replicas.insert(replica.ca().pin(), 1);
        let signing = roots.signing();
        records::each(store, &keys::replicas(), |stored| {
            // One that can't be read is of another version, and says nothing of roots.
            if let Ok(other) = Presence::read(stored)
                && other.id != replica.id
            {
                *holders.replicas.entry(other.root).or_default() += 1;
                let name = other.addresses.first().cloned().unwrap_or(other.replica_address);
                holders.note(other.root, signing, "replica", name, None);
            }
            Ok(())
        })
        .await?;
        records::each(store, &keys::operators(), |stored| {
            let (_, operator) = records::operator(stored)?;
            if operators::is_live(&operator, now) {
                let root = roots.of_record(&operator.root);
                *holders.operators.entry(root).or_default() += 1;
                holders.note(root, signing, "operator", operator.name, None);
            }
            Ok(())
        })
        .await?;
        records::each(store, &keys::identities(), |stored| {
            let node = stored.key.as_str().rsplit('/').next().and_then(|id| id.parse().ok());
            let corrupt = |error| StoreError::Corrupt(format!("{}: {error}", stored.key));
            let record =
                NodeRecord::decode(&stored.value).map_err(|error| store_failed(corrupt(error)))?;
            if record.deleted_at.is_none() {
                let root = record.root.unwrap_or_else(|| roots.of_record(&[]));
                *holders.nodes.entry(root).or_default() += 1;
                let name = format!("{}/{}", record.network, record.name);
                holders.note(root, signing, "node", name, node);
            }
            Ok(())
        })
        .await?;
        records::each(store, &keys::join_tokens(), |stored| {
            let (_, token) = records::join_token(stored)?;
            let used_up = token.max_uses != 0 && token.uses >= token.max_uses;
            let over = token.expires_at_millis <= clock::unix_millis(now);
            if !(token.revoked || used_up || over) {
                *holders.tokens.entry(roots.of_record(&token.pin)).or_default() += 1;
            }
            Ok(())
        })
        .await?;
        Ok(holders)
    }

    fn note(
        &mut self,
        root: Fingerprint,
        signing: Fingerprint,
        kind: &str,
        name: String,
        node: Option<NodeId>,
    ) {
        if root == signing {
            return;
        }
        self.behind_count += 1;
        if self.behind.len() < NAMED {
            let (kind, pin) = (kind.to_owned(), Bytes::copy_from_slice(root.as_bytes()));
            let shown = admin::RootHolder { kind, name, online: false, pin };
            self.behind.push(Holder { node, shown });
        }
    }

    fn refusal(&self) -> String {
        let names = self.behind.iter().take(NAMED_IN_REFUSAL);
        let names: Vec<_> =
            names.map(|holder| format!("{} {}", holder.shown.kind, holder.shown.name)).collect();
        let more = match self.behind_count.saturating_sub(names.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "still with a certificate of an older root, {} in all: {}{more}",
            self.behind_count,
            names.join(", ")
        )
    }

    fn shown(
        &self,
        roots: &Roots,
        root: &CertificateDer<'static>,
        trusted: bool,
        replica_signs: Fingerprint,
        now: SystemTime,
    ) -> Result<admin::Root, StoreError> {
        let read = Root::of(root).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let of = |all: &HashMap<Fingerprint, u32>| all.get(&read.pin).copied().unwrap_or(0);
        let vouches = roots.vouches_until(root).filter(|until| *until > now);
        Ok(admin::Root {
            pin: Bytes::copy_from_slice(read.pin.as_bytes()),
            not_before: Some(read.not_before.into()),
            not_after: Some(read.not_after.into()),
            trusted,
            signs: trusted && read.pin == roots.signing(),
            replica_signs: read.pin == replica_signs,
            nodes: of(&self.nodes),
            operators: of(&self.operators),
            join_tokens: of(&self.tokens),
            replicas: of(&self.replicas),
            vouches_until: vouches.map(Into::into),
            subject: read.subject,
        })
    }
}

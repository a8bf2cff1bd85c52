//! Operators: made from a CSR, listed, revoked. There is always an administrator left.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;
use wattle_certs::{CsrKey, Identity, SpiffeId};
use wattle_model::{OperatorId, OperatorName};
use wattle_proto::{admin, store as record};
use wattle_runtime::clock;

use super::{
    convert::{self, millis_after, parse},
    error::Field as _,
    mutation::{ATTEMPTS, Planned, contended},
    page::PageRequest,
    records,
};
use crate::{
    access::Principal,
    nodes::store_failed,
    replica::Replica,
    store::{Outcome, Store, Transaction, keys},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an operator's certificate is good where nobody says.
pub(super) const LIFETIME: Duration = DAY.saturating_mul(365);
const LONGEST: Duration = DAY.saturating_mul(3 * 365);

/// A new operator, who has the CSR's key.
pub(super) async fn plan_create(
    replica: &Replica,
    request: &admin::CreateOperatorRequest,
    now: SystemTime,
) -> Result<Planned<admin::CreateOperatorResponse>, Status> {
    let name: OperatorName = parse("name", &request.name)?;
    let role = convert::role(request.role)?;
    let key = CsrKey::from_der(&request.csr).in_field("csr")?;
    let lasts = convert::duration("time_to_live", request.time_to_live, LIFETIME, LONGEST)?;
    let (id, trust) = (OperatorId::new(rand::random()), replica.authority.now());
    let record = record::Operator {
        name: name.to_string(),
        role: role.into(),
        fingerprint: Bytes::copy_from_slice(key.fingerprint().as_bytes()),
        created_at_millis: clock::unix_millis(now),
        expires_at_millis: millis_after(now, lasts),
        revoked: false,
        root: Bytes::copy_from_slice(trust.ca.pin().as_bytes()),
    };
    let spiffe =
        SpiffeId { trust_domain: replica.trust_domain.clone(), identity: Identity::Operator(id) };
    let certificate = trust.ca.issue(&spiffe, &key, lasts, now).map_err(cannot_sign)?;
    let answer = admin::CreateOperatorResponse {
        operator: Some(convert::operator(id, &record)),
        certificate: Bytes::copy_from_slice(&certificate),
        ca_certificates: trust.told.clone(),
        trust_domain: replica.trust_domain.to_string(),
        control_planes: replica.roster.addresses().to_vec(),
        revision: 0,
    };
    let transaction = claim_name(&*replica.store, &name, id, now)
        .await?
        .create(keys::operator(id), record.encode_to_vec().into());
    Ok(Planned { transaction, answer })
}

/// A page of operators, expired and revoked ones too.
pub(super) async fn list(
    store: &dyn Store,
    request: &admin::ListOperatorsRequest,
) -> Result<admin::ListOperatorsResponse, Status> {
    let page = PageRequest::new(keys::operators(), request.page_size, &request.page_token)?;
    let (operators, next_page_token) = page
        .read(store, |stored| {
            let (id, operator) = records::operator(stored)?;
            Ok(Some(convert::operator(id, &operator)))
        })
        .await?;
    Ok(admin::ListOperatorsResponse { operators, next_page_token })
}

/// The operator's certificate is good for nothing any more.
pub(super) async fn plan_revoke(
    store: &dyn Store,
    request: &admin::RevokeOperatorRequest,
    now: SystemTime,
) -> Result<Planned<admin::RevokeOperatorResponse>, Status> {
    let id = OperatorId::try_from(request.id.as_ref()).in_field("id")?;
    let stored = store.get(&keys::operator(id)).await.map_err(store_failed)?;
    let stored =
        stored.ok_or_else(|| Status::not_found(format!("id: there is no operator {id}")))?;
    let (_, operator) = records::operator(&stored)?;
    let answer = admin::RevokeOperatorResponse::default();
    if operator.revoked {
        return Ok(Planned::nothing(Transaction::default().unchanged(&stored), answer));
    }
    let mut transaction = Transaction::default();
    if is_live_admin(&operator, now) {
        transaction = another_admin_stays(store, id, now).await?;
    }
    let revoked = record::Operator { revoked: true, ..operator };
    let transaction = transaction.replace(&stored, revoked.encode_to_vec().into());
    Ok(Planned { transaction, answer })
}

/// A new certificate for the operator who calls, who proves the key anew. It lasts as long as the
/// operator does; the record says which root it is of before the operator has it.
pub(super) async fn renew(
    replica: &Replica,
    principal: &Principal,
    request: &admin::RenewOperatorRequest,
    now: SystemTime,
) -> Result<admin::RenewOperatorResponse, Status> {
    let Principal::Operator { id, .. } = principal else {
        return Err(Status::permission_denied("only an operator may renew a certificate"));
    };
    let key = CsrKey::from_der(&request.csr).in_field("csr")?;
    let trust = replica.authority.now();
    for _ in 0..ATTEMPTS {
        let stored = replica.store.get(&keys::operator(*id)).await.map_err(store_failed)?;
        let stored = stored.ok_or_else(|| Status::permission_denied("no such operator"))?;
        let (_, operator) = records::operator(&stored)?;
        if operator.fingerprint != key.fingerprint().as_bytes().as_slice() {
            return Err(Status::permission_denied("csr: its key is not the operator's"));
        }
        let lasts = clock::from_unix_millis(operator.expires_at_millis).duration_since(now);
        let lasts = lasts.map_err(|_| Status::permission_denied("this operator's time is over"))?;
        let root = Bytes::copy_from_slice(trust.ca.pin().as_bytes());
        if operator.root != root {
            let moved = record::Operator { root, ..operator };
            let transaction = Transaction::default().replace(&stored, moved.encode_to_vec().into());
            if replica.store.commit(transaction).await.map_err(store_failed)? == Outcome::Conflict {
                continue;
            }
        }
        let identity = Identity::Operator(*id);
        let spiffe = SpiffeId { trust_domain: replica.trust_domain.clone(), identity };
        let certificate = trust.ca.issue(&spiffe, &key, lasts, now).map_err(cannot_sign)?;
        return Ok(admin::RenewOperatorResponse {
            certificate: Bytes::copy_from_slice(&certificate),
            ca_certificates: trust.told.clone(),
        });
    }
    Err(contended())
}

fn cannot_sign(error: wattle_certs::CaError) -> Status {
    tracing::error!(%error, "signing an operator's certificate");
    Status::internal("the control plane can't sign: see its log")
}

/// Whether an operator may still act.
pub(super) fn is_live(operator: &record::Operator, now: SystemTime) -> bool {
    !operator.revoked && operator.expires_at_millis > clock::unix_millis(now)
}

fn is_live_admin(operator: &record::Operator, now: SystemTime) -> bool {
    is_live(operator, now) && operator.role() == record::Role::Admin
}

/// Names are unique among those who live.
async fn claim_name(
    store: &dyn Store,
    name: &OperatorName,
    id: OperatorId,
    now: SystemTime,
) -> Result<Transaction, Status> {
    let key = keys::operator_name(name);
    let value = Bytes::copy_from_slice(id.as_bytes());
    let Some(claim) = store.get(&key).await.map_err(store_failed)? else {
        return Ok(Transaction::default().create(key, value));
    };
    let transaction = Transaction::default().replace(&claim, value);
    let Ok(holder) = OperatorId::try_from(claim.value.as_ref()) else {
        return Ok(transaction);
    };
    let holder = keys::operator(holder);
    let stored = store.get(&holder).await.map_err(store_failed)?;
    if let Some(stored) = &stored
        && is_live(&records::operator(stored)?.1, now)
    {
        return Err(Status::already_exists(format!(
            "name: there is an operator {name} already: choose another name or revoke that one"
        )));
    }
    Ok(transaction.as_read(holder, stored.as_ref()))
}

/// Refuses where no other administrator lives; the comparison keeps that one until the commit, so
/// that two administrators can't revoke each other at once.
async fn another_admin_stays(
    store: &dyn Store,
    id: OperatorId,
    now: SystemTime,
) -> Result<Transaction, Status> {
    let mut another = None;
    records::each(store, &keys::operators(), |stored| {
        let (other, operator) = records::operator(stored)?;
        if other != id && is_live_admin(&operator, now) {
            another.get_or_insert_with(|| stored.clone());
        }
        Ok(())
    })
    .await?;
    another.map(|stored| Transaction::default().unchanged(&stored)).ok_or_else(|| {
        Status::failed_precondition(
            "id: this is the last administrator: create another with role admin first",
        )
    })
}

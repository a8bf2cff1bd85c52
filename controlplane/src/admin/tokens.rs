//! Join tokens: made, listed, revoked. The secret leaves in the answer to its creation and nowhere
//! else; the store has its hash. Enrolment alone counts uses.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;
use wattle_model::{JoinToken, NodeName, TokenId, TokenSecret};
use wattle_proto::{admin, record::labels_map, store as record};
use wattle_runtime::clock;

use super::{
    convert::{self, millis_after, parse},
    error::{Field as _, invalid},
    mutation::Planned,
    networks,
    page::PageRequest,
    records,
};
use crate::{
    access::Principal,
    nodes::store_failed,
    replica::Replica,
    store::{Store, Transaction, keys},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST: Duration = DAY.saturating_mul(365);

/// A new token.
pub(super) async fn plan_create(
    replica: &Replica,
    principal: &Principal,
    request: &admin::CreateJoinTokenRequest,
    now: SystemTime,
) -> Result<Planned<admin::CreateJoinTokenResponse>, Status> {
    let network = networks::find(&*replica.store, "network", &request.network).await?;
    let lasts = convert::duration("time_to_live", request.time_to_live, DAY, LONGEST)?;
    let secret = TokenSecret::new(rand::random());
    let pin = replica.authority.now().token_pin();
    let record = record::JoinToken {
        secret_hash: Bytes::copy_from_slice(&secret.hash()),
        network: network.name.to_string(),
        labels: labels_map(&convert::labels("labels", &request.labels)?),
        node_name: node_name(request)?,
        uses: 0,
        max_uses: request.max_uses.unwrap_or(1),
        created_at_millis: clock::unix_millis(now),
        expires_at_millis: millis_after(now, lasts),
        revoked: false,
        created_by: author(principal),
        pin: Bytes::copy_from_slice(pin.as_bytes()),
    };
    let id = TokenId::new(rand::random());
    let token = JoinToken { id, secret, pin, addresses: replica.token_addresses() };
    let answer = admin::CreateJoinTokenResponse {
        join_token: Some(convert::join_token(id, &record)),
        token: token.expose(),
        revision: 0,
    };
    let transaction = Transaction::default()
        .create(keys::join_token(id), record.encode_to_vec().into())
        .put(keys::occupancy(&network.name), Bytes::new())
        .unchanged(&network.stored);
    Ok(Planned { transaction, answer })
}

/// A page of tokens, used up, expired and revoked ones too.
pub(super) async fn list(
    store: &dyn Store,
    request: &admin::ListJoinTokensRequest,
) -> Result<admin::ListJoinTokensResponse, Status> {
    let network = match request.network.as_str() {
        "" => None,
        name => Some(networks::find(store, "network", name).await?.name),
    };
    let page = PageRequest::new(keys::join_tokens(), request.page_size, &request.page_token)?;
    let (join_tokens, next_page_token) = page
        .read(store, |stored| {
            let (id, token) = records::join_token(stored)?;
            let meant = network.as_ref().is_none_or(|network| token.network == network.as_str());
            Ok(meant.then(|| convert::join_token(id, &token)))
        })
        .await?;
    Ok(admin::ListJoinTokensResponse { join_tokens, next_page_token })
}

/// Nobody enrols with it any more. Nodes that did stay.
pub(super) async fn plan_revoke(
    store: &dyn Store,
    request: &admin::RevokeJoinTokenRequest,
) -> Result<Planned<admin::RevokeJoinTokenResponse>, Status> {
    let id = TokenId::try_from(request.id.as_ref()).in_field("id")?;
    let stored = store.get(&keys::join_token(id)).await.map_err(store_failed)?;
    let stored =
        stored.ok_or_else(|| Status::not_found(format!("id: there is no join token {id}")))?;
    let (_, token) = records::join_token(&stored)?;
    let answer = admin::RevokeJoinTokenResponse::default();
    if token.revoked {
        return Ok(Planned::nothing(Transaction::default().unchanged(&stored), answer));
    }
    let revoked = record::JoinToken { revoked: true, ..token };
    let transaction = Transaction::default().replace(&stored, revoked.encode_to_vec().into());
    Ok(Planned { transaction, answer })
}

/// Whoever made a token, by name.
fn author(principal: &Principal) -> String {
    match principal {
        Principal::Operator { name, .. } => name.to_string(),
        other => other.to_string(),
    }
}

fn node_name(request: &admin::CreateJoinTokenRequest) -> Result<String, Status> {
    if request.node_name.is_empty() {
        return Ok(String::new());
    }
    let name: NodeName = parse("node_name", &request.node_name)?;
    match request.max_uses {
        None | Some(1) => Ok(name.to_string()),
        Some(_) => Err(invalid("max_uses", "a token that names its node has one use: say 1")),
    }
}

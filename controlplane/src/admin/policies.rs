//! Policies: who sees whom in a closed network, as operators see it. What operators change of them,
//! they change together with networks and labels, in one Apply.

use tonic::Status;
use wattle_model::{NetworkName, PolicyName};
use wattle_proto::admin;

use super::{
    convert::{self, parse},
    networks,
    page::PageRequest,
    records,
};
use crate::{
    nodes::store_failed,
    store::{Store, Stored, keys},
};

/// One policy.
pub(super) async fn get(
    store: &dyn Store,
    request: &admin::GetPolicyRequest,
) -> Result<admin::GetPolicyResponse, Status> {
    let network = networks::find(store, "network", &request.network).await?.name;
    let name: PolicyName = parse("name", &request.name)?;
    let policy = named(store, &network, [name.clone()]).await?.pop();
    let policy = policy.ok_or_else(|| none(&network, &name))?;
    Ok(admin::GetPolicyResponse { policy: Some(policy) })
}

/// Policies by name, without those that are gone.
pub(super) async fn named(
    store: &dyn Store,
    network: &NetworkName,
    names: impl IntoIterator<Item = PolicyName>,
) -> Result<Vec<admin::Policy>, Status> {
    let mut policies = Vec::new();
    for name in names {
        let stored = store.get(&keys::policy(network, &name)).await.map_err(store_failed)?;
        policies.extend(stored.as_ref().map(message).transpose()?.flatten());
    }
    Ok(policies)
}

/// A page of policies.
pub(super) async fn list(
    store: &dyn Store,
    request: &admin::ListPoliciesRequest,
) -> Result<admin::ListPoliciesResponse, Status> {
    let prefix = match request.network.as_str() {
        "" => keys::all_policies(),
        name => keys::policies(&networks::find(store, "network", name).await?.name),
    };
    let page = PageRequest::new(prefix, request.page_size, &request.page_token)?;
    let (policies, next_page_token) = page.read(store, message).await?;
    Ok(admin::ListPoliciesResponse { policies, next_page_token })
}

fn none(network: &NetworkName, name: &PolicyName) -> Status {
    Status::not_found(format!("name: network {network} has no policy {name}"))
}

/// The policy of a `v1/policy/` record; `None` where it was deleted.
fn message(stored: &Stored) -> Result<Option<admin::Policy>, Status> {
    let (network, name, history) = records::policy(stored)?;
    let present = history.present();
    Ok(present.body.as_ref().map(|body| convert::policy(&network, &name, body, present.from)))
}

//! Preshared keys as an option of a network, and another secret to derive them of. What nodes make of it,
//! `crate::secrets` and their agents say; no secret is ever in an answer.

use std::time::SystemTime;

use tonic::Status;
use wattle_model::NetworkName;
use wattle_proto::admin;

use super::{convert, mutation::Planned, networks, session::Agents};
use crate::{
    nodes::store_failed,
    secrets::{NetworkSecrets, ReadSecrets, Standing},
    store::{Store, Transaction},
};

/// What a network's option means for its secrets, from what it was to what it is to be: another generation
/// for its nodes to come to, with a secret or without one.
pub(super) async fn turn(
    store: &dyn Store,
    network: &NetworkName,
    (was, is): (bool, bool),
    now: SystemTime,
) -> Result<Transaction, Status> {
    if was == is {
        return Ok(Transaction::default());
    }
    let read = ReadSecrets::of(store, network).await.map_err(store_failed)?;
    let next = if is { read.secrets.renewed(now) } else { read.secrets.ended(now) };
    Ok(read.write(&next))
}

/// A network that is deleted leaves no secret behind.
pub(super) async fn forget(
    store: &dyn Store,
    network: &NetworkName,
) -> Result<Transaction, Status> {
    let read = ReadSecrets::of(store, network).await.map_err(store_failed)?;
    Ok(read.forget())
}

/// Another secret for a network.
pub(super) async fn plan_rotate(
    agents: &Agents,
    request: &admin::RotateNetworkSecretRequest,
    now: SystemTime,
) -> Result<Planned<admin::RotateNetworkSecretResponse>, Status> {
    let store = &*agents.replica.store;
    let found = networks::find(store, "name", &request.name).await?;
    let name = &found.name;
    let read = ReadSecrets::of(store, name).await.map_err(store_failed)?;
    let present = read.secrets.present().filter(|_| found.body.preshared_keys);
    let Some(present) = present else {
        return Err(Status::failed_precondition(format!(
            "name: network {name} has no preshared keys: turn them on with `wattle network update \
             {name} --preshared-keys on`"
        )));
    };
    agents.caught_up().await?;
    let standing = Standing::of(&agents.replica.live.read(), name, present);
    if standing.behind > 0 && !request.force {
        return Err(Status::failed_precondition(format!(
            "name: {} of network {name} still go by the secret before generation {present} ({}): wait \
             until they have connected, delete them, or force it: then whoever has forgotten that secret \
             begins no session with them before they have connected",
            standing.behind,
            standing.behind()
        )));
    }
    let next = read.secrets.renewed(now);
    let mut network = convert::network(name, &found.body, found.since());
    network.secret = secret(&next, &Standing::default());
    // How far it is isn't known before it is begun.
    let answer = admin::RotateNetworkSecretResponse { network: Some(network), revision: 0 };
    let transaction = Transaction::default().unchanged(&found.stored).and(read.write(&next));
    Ok(Planned { transaction, answer })
}

/// Adds what may be known of a network's secret, and how far its nodes are with it.
pub(super) async fn describe(agents: &Agents, network: &mut admin::Network) -> Result<(), Status> {
    let name = network.name.parse::<NetworkName>();
    let Ok(name) = name else { return Ok(()) };
    let read = ReadSecrets::of(&*agents.replica.store, &name).await.map_err(store_failed)?;
    let Some(present) = read.secrets.present() else { return Ok(()) };
    let standing = Standing::of(&agents.replica.live.read(), &name, present);
    if network.preshared_keys || standing.behind > 0 {
        network.secret = secret(&read.secrets, &standing);
    }
    Ok(())
}

fn secret(secrets: &NetworkSecrets, standing: &Standing) -> Option<admin::NetworkSecret> {
    Some(admin::NetworkSecret {
        generation: secrets.present()?.0,
        made_at: secrets.made_at().map(Into::into),
        nodes_holding: standing.holding,
        nodes_behind: standing.behind,
        nodes_without: standing.without,
    })
}

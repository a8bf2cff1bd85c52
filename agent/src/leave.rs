//! Leaving the network: the control plane deletes the node, then its link and its state go. Done by
//! the running agent where there is one, so that nobody else touches its device.

use anyhow::{Context as _, anyhow, bail};
use nix::net::if_::if_nametoindex;
use wattle_proto::enroll::LeaveRequest;

use crate::{
    config::{DownArgs, LeaveArgs, MadeArgs},
    control_plane::{self, CallError, request},
    kernel,
    state::{StateDir, identity::Identity},
    status::socket::{self, Asked},
};

/// `wattle-agent leave`.
pub(crate) async fn leave(args: LeaveArgs) -> anyhow::Result<()> {
    if let Some(answer) =
        socket::ask(&args.state.socket(), Asked::Leave { force: args.force }).await?
    {
        let reply: socket::Reply = serde_json::from_str(&answer).context("the agent's answer")?;
        return reply.error.map_or(Ok(()), |error| Err(anyhow!(error)));
    }
    let state = StateDir::open(&args.state.state_dir)?;
    let Some(identity) = state.identity()? else {
        bail!("this machine hasn't joined a network: nothing to leave");
    };
    delete_node(&identity, args.force).await?;
    remove(&args.made, &identity).await?;
    state.clear()?;
    Ok(())
}

/// `wattle-agent down`.
pub(crate) async fn down(args: DownArgs) -> anyhow::Result<()> {
    // Held until the end: an agent that starts meanwhile waits for nothing, it ends.
    let state = StateDir::open(&args.state.state_dir)
        .context("the agent runs: stop it first, or have it leave")?;
    let Some(identity) = state.identity()? else {
        bail!("this machine hasn't joined a network: nothing was made");
    };
    remove(&args.made, &identity).await
}

/// Takes away what an agent that doesn't run any more made. A userspace device ended with its agent:
/// only rules may be left of it.
async fn remove(made: &MadeArgs, identity: &Identity) -> anyhow::Result<()> {
    let place = made.place(&identity.wireguard_key, identity.next_wireguard_key.as_slice());
    if if_nametoindex(made.interface.as_str()).is_ok() {
        kernel::open(made.dataplane, &place).await?.remove().await?;
    }
    kernel::remove_rules(&place).await?;
    Ok(())
}

/// Has the control plane delete the node; a node that is deleted already is fine. With `force`, a
/// control plane that can't be reached is fine too.
pub(crate) async fn delete_node(identity: &Identity, force: bool) -> anyhow::Result<()> {
    if identity.deleted {
        return Ok(());
    }
    match call(identity).await {
        Ok(()) | Err(CallError::Removed) => Ok(()),
        Err(error) if force => {
            tracing::warn!(%error, "left without telling the control plane: delete the node there");
            Ok(())
        }
        Err(error) => Err(error).context(
            "the node wasn't deleted; --force forgets it on this machine alone and leaves its \
             deletion to an operator",
        ),
    }
}

async fn call(identity: &Identity) -> Result<(), CallError> {
    let mut client = control_plane::enrollment(identity, control_plane::tls(identity)?).await?;
    client.leave(request(LeaveRequest {})).await?;
    Ok(())
}

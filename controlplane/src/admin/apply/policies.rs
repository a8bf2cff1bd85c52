//! Policies in an Apply: set or deleted.

use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;
use wattle_model::{NetworkName, PolicyName};
use wattle_proto::{
    admin::{self, resource::Kind},
    record::PolicyBody,
};
use wattle_runtime::clock;

use super::{
    READ_AT_ONCE,
    draft::{Draft, Step},
    wish::{Asked, PolicyWish},
};
use crate::{
    admin::record::Record,
    store::{Store, keys},
};

/// Takes in all policies of a request.
pub(super) async fn plan(
    store: &dyn Store,
    draft: &mut Draft,
    wishes: Vec<(Asked, PolicyWish)>,
    now: SystemTime,
) -> Result<(), Status> {
    let records = stream::iter(wishes).map(async |(asked, wish)| {
        let key = keys::policy(&wish.network, &wish.name);
        let record = Record::<PolicyBody>::read(store, key).await?;
        Ok::<_, Status>((asked, wish, record))
    });
    let mut records = records.buffered(READ_AT_ONCE);
    while let Some((asked, wish, record)) = records.try_next().await? {
        let present = record.present();
        let next = wish.policy.clone().map(|policy| PolicyBody {
            created_at_millis: present
                .map_or_else(|| clock::unix_millis(now), |body| body.created_at_millis),
            policy,
        });
        let spec = |body: &PolicyBody| spec(&wish.network, &wish.name, body);
        let step = Step {
            network: wish.network.clone(),
            noun: "policy",
            name: format!("{}/{}", wish.network, wish.name),
            before: present.map(spec),
            after: next.as_ref().map(spec),
            revision: record.revision(),
            upto: record.revision(),
            transaction: record.write(next.as_ref()),
        };
        if draft.step(asked, step) {
            let (network, name, policy) = (wish.network, wish.name, wish.policy);
            let propose = |site: &mut super::draft::Site| {
                site.proposal.policies.insert(name, policy);
            };
            draft.sites.entry(network).and_modify(propose);
        }
    }
    Ok(())
}

fn spec(network: &NetworkName, name: &PolicyName, body: &PolicyBody) -> Kind {
    Kind::Policy(admin::PolicySpec {
        network: network.to_string(),
        name: name.to_string(),
        from: body.policy.from.to_string(),
        to: body.policy.to.to_string(),
    })
}

//! Join tokens: what is in them, what the store keeps, and their end.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tonic::Code;
use wattle_model::{JoinToken, OperatorId};
use wattle_proto::admin::{
    CreateJoinTokenRequest, ListJoinTokensRequest, RevokeJoinTokenRequest,
    admin_service_server::AdminService as _,
};

use super::world::{World, by, local, operator, refused, said};
use crate::store::{Store as _, keys};

#[tokio::test]
async fn a_token_leads_here_and_its_secret_is_kept_as_a_hash() {
    let world = World::new().await;
    let request = CreateJoinTokenRequest {
        request_id: world.id(),
        network: "default".into(),
        labels: [("site".to_owned(), "fra".to_owned())].into(),
        node_name: "db-1".into(),
        max_uses: None,
        time_to_live: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
    };
    let ann = operator(OperatorId::new([1; 16]), "ann");
    let made = said(world.admin.create_join_token(by(ann, request)).await);
    let token: JoinToken = made.token.parse().unwrap();
    assert_eq!(token.addresses, world.replica.advertised);
    assert_eq!(token.pin, world.replica.ca().pin());
    let shown = made.join_token.unwrap();
    assert_eq!(shown.id, token.id.as_bytes().as_slice());
    assert_eq!((shown.max_uses, shown.node_name.as_str()), (1, "db-1"));
    assert_eq!(shown.created_by, "ann");
    let expires = SystemTime::try_from(shown.expires_at.unwrap()).unwrap();
    let lasts = expires.duration_since(SystemTime::now()).unwrap();
    assert!((Duration::from_secs(3590)..=Duration::from_secs(3600)).contains(&lasts));

    let everything = world.store.list(&keys::all(), None, 1000).await.unwrap().items;
    let secret = token.secret.expose_bytes();
    let holds = |value: &Bytes| value.windows(secret.len()).any(|bytes| bytes == secret);
    assert!(!everything.iter().any(|stored| holds(&stored.value)), "the secret is in the store");
    let stored = world.store.get(&keys::join_token(token.id)).await.unwrap().unwrap();
    let stored: wattle_proto::store::JoinToken = prost::Message::decode(stored.value).unwrap();
    assert_eq!(stored.secret_hash, token.secret.hash().as_slice());
}

#[tokio::test]
async fn uses_are_one_unless_said_otherwise() {
    let world = World::new().await;
    for (asked, kept) in [(None, 1), (Some(0), 0), (Some(7), 7)] {
        let request = CreateJoinTokenRequest {
            request_id: world.id(),
            network: "default".into(),
            max_uses: asked,
            ..Default::default()
        };
        let made = said(world.admin.create_join_token(local(request)).await);
        assert_eq!(made.join_token.unwrap().max_uses, kept);
    }
}

#[tokio::test]
async fn a_revoked_token_stays_listed_and_is_revoked_once() {
    let world = World::new().await;
    let token = world.token("default", 5).await;
    let revoke = |id: Bytes| local(RevokeJoinTokenRequest { request_id: world.id(), id });
    let id = Bytes::copy_from_slice(token.id.as_bytes());
    let first = said(world.admin.revoke_join_token(revoke(id.clone())).await);
    let stored = world.store.get(&keys::join_token(token.id)).await.unwrap().unwrap();
    assert_eq!(stored.modified.0, first.revision);
    said(world.admin.revoke_join_token(revoke(id)).await);
    let again = world.store.get(&keys::join_token(token.id)).await.unwrap().unwrap();
    assert_eq!(again.modified, stored.modified);
    let list = local(ListJoinTokensRequest::default());
    let listed = said(world.admin.list_join_tokens(list).await).join_tokens;
    assert!(listed.len() == 1 && listed[0].revoked);

    let unknown = revoke(Bytes::from_static(&[9; 8]));
    let status = refused(world.admin.revoke_join_token(unknown).await);
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "id: there is no join token 0909090909090909");
}

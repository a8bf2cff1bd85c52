//! The CA's roots: who may add one, and when the old one may go.

use std::time::SystemTime;

use bytes::Bytes;
use tonic::Code;
use wattle_certs::{Ca, KeyPair};
use wattle_proto::admin::{
    CreateOperatorRequest, GetCaRequest, RenewOperatorRequest, RetireRootsRequest, Role,
    TrustRootRequest, admin_service_server::AdminService as _,
};

use super::world::{World, by, local, operator, refused, said};
use crate::authority::{CaFiles, follow};

fn ca(world: &World) -> Ca {
    Ca::generate(&world.replica.trust_domain, SystemTime::now())
}

fn request(world: &World, new: &Ca, by: &Ca) -> TrustRootRequest {
    let cross = by.cross_sign(new.certificate(), SystemTime::now()).unwrap();
    TrustRootRequest {
        request_id: world.id(),
        certificate: Bytes::copy_from_slice(new.certificate()),
        cross_certificate: Bytes::copy_from_slice(&cross),
    }
}

async fn look(world: &World) {
    let files = CaFiles::of(world.folder.path());
    follow::look(&world.replica.authority, &files, &*world.store).await.unwrap();
}

#[tokio::test]
async fn only_who_has_the_ca_s_key_adds_a_root() {
    let world = World::new().await;
    let (new, stranger) = (ca(&world), ca(&world));
    let before = world.head().await;
    let own = world.replica.ca();
    let of_another_key = TrustRootRequest {
        certificate: Bytes::copy_from_slice(stranger.certificate()),
        ..request(&world, &new, &own)
    };
    let cases = [
        (request(&world, &new, &stranger), "cross_certificate: "),
        (of_another_key, "cross_certificate: "),
        (
            TrustRootRequest { certificate: Bytes::new(), ..request(&world, &new, &own) },
            "certificate: ",
        ),
    ];
    for (request, field) in cases {
        let status = refused(world.admin.trust_root(local(request)).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    assert_eq!(world.head().await, before, "nothing was changed");
    for _ in 0..2 {
        said(world.admin.trust_root(local(request(&world, &new, &own))).await);
    }
    let status = refused(world.admin.trust_root(local(request(&world, &stranger, &own))).await);
    assert!(status.message().contains("finish that rotation first"), "{status}");
    look(&world).await;
    let roots = said(world.admin.get_ca(local(GetCaRequest {})).await).roots;
    let shown: Vec<_> = roots.iter().map(|root| (root.trusted, root.signs)).collect();
    assert_eq!(shown, [(true, true), (true, false)]);
    assert!(roots[0].vouches_until.is_some() && roots[0].replica_signs);
}

#[tokio::test]
async fn a_rotation_is_given_up_until_something_is_signed_with_the_new_root() {
    let world = World::new().await;
    let give_up = || RetireRootsRequest { request_id: world.id(), force: false, newer: true };
    let nothing = said(world.admin.retire_roots(local(give_up())).await);
    assert!(nothing.retired_pins.is_empty());
    let (old, lost, new) = (world.replica.ca(), ca(&world), ca(&world));
    said(world.admin.trust_root(local(request(&world, &lost, &old))).await);
    look(&world).await;
    let gone = said(world.admin.retire_roots(local(give_up())).await).retired_pins;
    assert_eq!(gone, [lost.pin().as_bytes().as_slice()]);
    look(&world).await;
    assert_eq!(world.replica.roots(), [old.certificate().clone()]);

    // The next one isn't held up, and once it signs there is no way back.
    said(world.admin.trust_root(local(request(&world, &new, &old))).await);
    let files = CaFiles::of(world.folder.path());
    std::fs::write(&files.key, new.key_pem().as_bytes()).unwrap();
    look(&world).await;
    assert_eq!(world.replica.ca().pin(), new.pin());
    let late = refused(world.admin.retire_roots(local(give_up())).await);
    assert!(late.message().contains("no way back"), "{late}");
}

#[tokio::test]
async fn the_old_root_stays_while_somebody_has_a_certificate_of_it() {
    let world = World::new().await;
    let node = world.node("web-1").await;
    let key = KeyPair::generate();
    let made = CreateOperatorRequest {
        request_id: world.id(),
        name: "ann".into(),
        role: Role::Viewer.into(),
        csr: key.csr().into(),
        time_to_live: None,
    };
    let ann = said(world.admin.create_operator(local(made)).await).operator.unwrap();
    let ann = operator(ann.id.as_ref().try_into().unwrap(), "ann");
    let retire = |force| RetireRootsRequest { request_id: world.id(), force, newer: false };
    let nothing = said(world.admin.retire_roots(local(retire(false))).await);
    assert!(nothing.retired_pins.is_empty());

    let (old, new) = (world.replica.ca(), ca(&world));
    said(world.admin.trust_root(local(request(&world, &new, &old))).await);
    let early = refused(world.admin.retire_roots(local(retire(true))).await);
    assert!(early.message().contains("signs nothing yet"), "{early}");
    let files = CaFiles::of(world.folder.path());
    std::fs::write(&files.key, new.key_pem().as_bytes()).unwrap();
    look(&world).await;
    look(&world).await;

    let status = refused(world.admin.retire_roots(local(retire(false))).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("2 in all"), "{status}");
    assert!(status.message().contains("operator ann, node default/web-1"), "{status}");
    let (root, first) = (new.pin(), old.pin());
    world.nodes.set_root(node.node, root, first).await.unwrap();
    let head = world.head().await;
    world.nodes.set_root(node.node, root, first).await.unwrap();
    assert_eq!(world.head().await, head, "what is so already isn't written");

    // An operator proves the key, and gets a certificate of the new root for the same time.
    let renew = |csr: Vec<u8>| RenewOperatorRequest { csr: csr.into() };
    let other = refused(
        world.admin.renew_operator(by(ann.clone(), renew(KeyPair::generate().csr()))).await,
    );
    assert!(other.message().contains("not the operator's"), "{other}");
    let status = refused(world.admin.renew_operator(local(renew(key.csr()))).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    let renewed = said(world.admin.renew_operator(by(ann, renew(key.csr()))).await);
    let certificate = renewed.certificate.to_vec().into();
    assert_eq!(wattle_certs::root_of(&certificate, &[new.certificate().clone()]), Some(root));

    let retired = said(world.admin.retire_roots(local(retire(false))).await);
    assert_eq!(retired.retired_pins, [first.as_bytes().as_slice()]);
    let shown = said(world.admin.get_ca(local(GetCaRequest {})).await);
    let roots: Vec<_> = shown.roots.iter().map(|root| (root.trusted, root.nodes)).collect();
    assert_eq!((roots, shown.behind_count), (vec![(false, 0), (true, 1)], 0));
}

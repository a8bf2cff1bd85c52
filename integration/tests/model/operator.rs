//! What operators do, over and over until the control plane answers, and what they are promised.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use wattle_model::{Mode, NodeId};
use wattle_proto::admin::{
    self, ApplyRequest, CreateJoinTokenRequest, DeleteNodeRequest, LabelNodeRequest, NodeRef,
    PolicySpec, Resource, UpdateNetworkRequest, admin_service_client::AdminServiceClient,
    resource::Kind,
};

use crate::{PATIENCE, script::Which, world::World};

impl World {
    pub(crate) async fn token(&self, role: &str) -> String {
        // A repeated request doesn't show the token again: each try is a request of its own.
        let made = self.operate(true, async |mut admin, request_id| {
            let labels = BTreeMap::from([("role".into(), role.into())]);
            let network = "default".into();
            let request = CreateJoinTokenRequest {
                request_id,
                network,
                labels,
                ..CreateJoinTokenRequest::default()
            };
            Ok(admin.create_join_token(request).await?.into_inner())
        });
        made.await.unwrap().token
    }

    pub(crate) async fn delete(&self, which: Which) {
        let Some(node) = self.node(which).await else { return };
        self.promises.borrow_mut().live.remove(&node);
        let deleted = self.operate(false, async |mut admin, request_id| {
            let request = DeleteNodeRequest { request_id, node: Some(by_id(node)) };
            admin.delete_node(request).await.map(drop)
        });
        if deleted.await.is_ok() {
            self.promises.borrow_mut().deleted.insert(node);
        }
    }

    pub(crate) async fn label(&self, which: Which, role: Option<&str>) {
        let Some(node) = self.node(which).await else { return };
        let labelled = self.operate(false, async |mut admin, request_id| {
            let set = role.map(|role| ("role".to_owned(), role.to_owned())).into_iter().collect();
            let remove = if role.is_none() { vec!["role".to_owned()] } else { vec![] };
            let request = LabelNodeRequest { request_id, node: Some(by_id(node)), set, remove };
            Ok(admin.label_node(request).await?.into_inner().revision)
        });
        if let Ok(revision) = labelled.await {
            let mut promises = self.promises.borrow_mut();
            let last = promises.roles.entry(node).or_default();
            // At revision 0 it changed nothing.
            if revision > last.0 {
                *last = (revision, role.map(str::to_owned));
            }
        }
    }

    pub(crate) async fn mode(&self, mode: Mode) {
        let mode = match mode {
            Mode::Mesh => admin::Mode::Mesh,
            Mode::Closed => admin::Mode::Closed,
        };
        let changed = self.operate(false, async |mut admin, request_id| {
            let name = "default".into();
            let request = UpdateNetworkRequest {
                request_id,
                name,
                mode: mode.into(),
                ..UpdateNetworkRequest::default()
            };
            admin.update_network(request).await.map(drop)
        });
        changed.await.unwrap();
    }

    pub(crate) async fn policy(&self, name: &str, sides: Option<(&str, &str)>) {
        let (from, to) = sides.unwrap_or_default();
        let spec = PolicySpec {
            network: "default".into(),
            name: name.into(),
            from: format!("role={from}"),
            to: format!("role={to}"),
        };
        let kind = Some(Kind::Policy(spec));
        let resource = Resource { kind, revision: None, delete: sides.is_none() };
        let applied = self.operate(false, async |mut admin, request_id| {
            let resources = vec![resource.clone()];
            let request = ApplyRequest { request_id, resources, ..ApplyRequest::default() };
            Ok(admin.apply(request).await?.into_inner().revision)
        });
        let revision = applied.await.unwrap();
        let mut promises = self.promises.borrow_mut();
        let last = promises.policies.entry(name.to_owned()).or_default();
        // At the same one it says the same.
        if revision > last.0 {
            let sides = sides.map(|(from, to)| (from.to_owned(), to.to_owned()));
            *last = (revision, sides);
        }
    }

    /// What an operator does, again until it is answered. `anew`: each time as another request.
    async fn operate<T>(
        &self,
        anew: bool,
        call: impl AsyncFn(AdminServiceClient<Channel>, Bytes) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut id = self.next_request();
        loop {
            let admin = self.control_plane.lock().await.admin().await;
            let answer = match admin {
                Some(admin) => timeout(PATIENCE, call(admin, id.clone())).await.unwrap(),
                None => Err(Status::unavailable("nobody there")),
            };
            match answer {
                Err(status) if is_passing(&status) => sleep(Duration::from_millis(50)).await,
                answer => return answer,
            }
            if anew {
                id = self.next_request();
            }
        }
    }

    fn next_request(&self) -> Bytes {
        self.requests.set(self.requests.get() + 1);
        self.requests.get().to_be_bytes().to_vec().into()
    }
}

fn by_id(node: NodeId) -> NodeRef {
    NodeRef { network: "default".into(), node: node.to_string() }
}

/// The control plane went away under the call, or hasn't got round to it.
fn is_passing(status: &Status) -> bool {
    !matches!(status.code(), Code::NotFound | Code::InvalidArgument | Code::AlreadyExists)
}

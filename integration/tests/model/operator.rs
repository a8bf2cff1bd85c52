//! What operators do, over and over until the control plane answers, and what they are promised.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use wattle_controlplane::store::{Outcome, Transaction, keys};
use wattle_model::{Mode, NodeId, Policy};
use wattle_proto::{
    admin::{
        self, CreateJoinTokenRequest, DeleteNodeRequest, LabelNodeRequest, NodeRef,
        UpdateNetworkRequest, admin_service_client::AdminServiceClient,
    },
    record::{PolicyBody, decode_history, encode_changed, encode_first},
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

    /// Policies have no API yet: written as it will write them.
    pub(crate) async fn policy(&self, name: &str, sides: Option<(&str, &str)>) {
        let key = keys::policy(&"default".parse().unwrap(), &name.parse().unwrap());
        let body = sides.map(|(from, to)| PolicyBody {
            created_at_millis: 1,
            policy: Policy {
                from: format!("role={from}").parse().unwrap(),
                to: format!("role={to}").parse().unwrap(),
            },
        });
        loop {
            let store = self.control_plane.lock().await.store();
            if let Some(store) = store
                && let Ok(read) = store.get(&key).await
            {
                let transaction = match (&read, &body) {
                    (None, None) => return,
                    (None, Some(body)) => {
                        Transaction::default().create(key.clone(), encode_first(body))
                    }
                    (Some(read), _) => {
                        let history =
                            decode_history::<PolicyBody>(&read.value, read.modified).unwrap();
                        if history.present().body == body {
                            return;
                        }
                        Transaction::default().replace(read, encode_changed(history, body.clone()))
                    }
                };
                if let Ok(Outcome::Committed(_)) = store.commit(transaction).await {
                    return;
                }
            }
            sleep(Duration::from_millis(50)).await;
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

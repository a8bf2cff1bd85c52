//! `wattle status`.

use std::time::SystemTime;

use wattle_proto::admin::GetStatusRequest;

use crate::{client::Client, console::Console, failure::Failure, shape};

pub(crate) async fn run(client: &mut Client, console: &mut Console) -> Result<(), Failure> {
    let status = client.admin.get_status(GetStatusRequest {}).await?.into_inner();
    let status = shape::Status::new(&client.address, status, SystemTime::now())?;
    status.silent().iter().for_each(|silent| console.warn(silent));
    console.sheet(&status)
}

//! `wattle diff -f FILE`.

use std::path::PathBuf;

use similar::TextDiff;
use wattle_proto::admin::{Applied, ApplyResponse, Resource};

use super::apply;
use crate::{
    args::Format,
    console::Console,
    declare::{self, Document, Sources},
    failure::Failure,
    shape,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lines with - are as it is, lines with + as the files have it. With -o json: what `apply --dry-run` \
prints.

The exit status is 0 where there is no difference, 1 where there are some, 2 where it couldn't be \
told.

Example:
  wattle diff -f policies.yaml || wattle apply -f policies.yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(crate) async fn run(
    context: Option<PathBuf>,
    args: &Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let (declared, mut client) = apply::prepare(context, &args.sources).await?;
    let resources = declared.resources();
    let response = apply::ask(&mut client, &declared, &resources, true).await?;
    show(response, &resources, console)
}

fn show(
    response: ApplyResponse,
    resources: &[Resource],
    console: &mut Console,
) -> Result<(), Failure> {
    let changes = response.applied.iter().zip(resources);
    let changes: Vec<_> = changes.filter_map(|(applied, sent)| difference(applied, sent)).collect();
    let applied = shape::Applied::new(response, resources, true);
    match console.format() {
        Format::Table => changes.iter().try_for_each(|text| console.line(text.trim_end()))?,
        Format::Json | Format::Yaml => console.json(&applied)?,
    }
    if applied.changes() { Err(Failure::Differs) } else { Ok(()) }
}

/// A resource's change as a unified diff; `None` where there is none.
fn difference(applied: &Applied, sent: &Resource) -> Option<String> {
    let text = |resource: &Option<Resource>| {
        let resource = resource.as_ref().filter(|resource| !resource.delete);
        // What `apply` compares is told apart from what it makes anew.
        let bare = resource.map(|resource| Resource { revision: None, ..resource.clone() });
        bare.map(|resource| Document::from(&resource).yaml()).unwrap_or_default()
    };
    let (before, after) = (text(&applied.before), text(&applied.after));
    if before == after {
        return None;
    }
    let (noun, name) = declare::named(sent);
    let now = match applied.before.as_ref().and_then(|before| before.revision) {
        Some(revision) => format!("{noun} {name} (revision {revision})"),
        None => format!("{noun} {name}"),
    };
    let then = format!("{noun} {name}");
    // Documents are short: all of one is shown.
    let diff = TextDiff::from_lines(&before, &after);
    Some(diff.unified_diff().context_radius(1000).header(&now, &then).to_string())
}

#[cfg(test)]
mod tests {
    use wattle_proto::admin::{PolicySpec, applied::Action, resource::Kind};

    use super::*;
    use crate::console::tests::console;

    fn policy(name: &str, to: &str, revision: Option<u64>) -> Resource {
        let spec = PolicySpec {
            network: "default".into(),
            name: name.into(),
            from: "role=web".into(),
            to: to.into(),
        };
        Resource { kind: Some(Kind::Policy(spec)), revision, delete: false }
    }

    fn applied(action: Action, before: Option<Resource>, after: Option<Resource>) -> Applied {
        Applied { action: action.into(), before, after, ..Default::default() }
    }

    fn shown(applied: Vec<Applied>, sent: &[Resource]) -> (Result<(), Failure>, String) {
        let (mut console, out, _) = console(Format::Table, None);
        let response = ApplyResponse { revision: 9, applied, ..Default::default() };
        (show(response, sent, &mut console), out.text())
    }

    #[test]
    fn each_changed_resource_is_a_unified_diff() {
        let (old, new) = (policy("a", "role=db", Some(7)), policy("a", "role in (db,cache)", None));
        let made = policy("b", "", None);
        let gone = Resource { delete: true, ..policy("c", "", None) };
        let (result, text) = shown(
            vec![
                applied(Action::Updated, Some(old.clone()), Some(new.clone())),
                applied(Action::Unchanged, Some(old.clone()), Some(old)),
                applied(Action::Created, None, Some(made.clone())),
                applied(Action::Deleted, Some(policy("c", "x", Some(3))), None),
            ],
            &[new.clone(), new, made, gone],
        );
        assert_eq!(result, Err(Failure::Differs));
        assert_eq!(
            text,
            "--- policy default/a (revision 7)\n\
             +++ policy default/a\n\
             @@ -1,5 +1,5 @@\n \
             kind: Policy\n \
             network: default\n \
             name: a\n \
             from: role=web\n\
             -to: role=db\n\
             +to: role in (db,cache)\n\
             --- policy default/b\n\
             +++ policy default/b\n\
             @@ -0,0 +1,5 @@\n\
             +kind: Policy\n+network: default\n+name: b\n+from: role=web\n+to: \"\"\n\
             --- policy default/c (revision 3)\n\
             +++ policy default/c\n\
             @@ -1,5 +0,0 @@\n\
             -kind: Policy\n-network: default\n-name: c\n-from: role=web\n-to: x\n"
        );
    }

    #[test]
    fn without_a_difference_nothing_is_said() {
        let same = policy("a", "", Some(7));
        let answer = applied(Action::Unchanged, Some(same.clone()), Some(same.clone()));
        assert_eq!(shown(vec![answer], &[same]), (Ok(()), String::new()));
    }
}

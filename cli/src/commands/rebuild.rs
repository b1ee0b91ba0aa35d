//! `holdfast rebuild`: the catalog again, from the store alone. Damage is told by name; exit 4.

use crate::args::Global;
use crate::connect::{self, Access};
use crate::failure::{Exit, Failure, Outcome};

/// Rebuilds it beside the old one, then takes its place.
pub async fn run(global: &Global) -> Outcome<()> {
    let url = global
        .repo
        .as_deref()
        .ok_or_else(|| Failure::usage("say where: --repo URL (or HOLDFAST_REPO)"))?;
    let repository = connect::open_repository(global, url).await?;
    let state = connect::state_of(global, repository.id());
    connect::private_dir(&state)?;
    let damage = connect::rebuild_catalog(global, &repository, &state, Access::Write).await?;
    match damage.len() {
        0 => {
            if !global.quiet {
                println!(
                    "rebuilt the catalog of {} in {}",
                    repository.id(),
                    state.display()
                );
            }
            Ok(())
        }
        count => Err(Failure::with(
            Exit::Damage,
            format!("{count} objects are damaged or missing; everything else is in the catalog"),
        )),
    }
}

//! Commands that list by default: `jobs` is short for `jobs list`.

use clap::{Args, Subcommand};

/// Arguments `L` of the list, or one of the other actions `A`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ListOr<L: Args, A: Subcommand> {
    #[command(subcommand)]
    action: Option<Action<L, A>>,
    #[command(flatten)]
    list: L,
}

#[derive(Clone, Debug, Subcommand)]
enum Action<L: Args, A: Subcommand> {
    /// List all (the same as without a subcommand).
    List(L),
    #[command(flatten)]
    Other(A),
}

impl<L: Args, A: Subcommand> ListOr<L, A> {
    /// Runs the selected action.
    pub async fn run(
        &self,
        list: impl AsyncFnOnce(&L) -> anyhow::Result<()>,
        other: impl AsyncFnOnce(&A) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match &self.action {
            None => list(&self.list).await,
            Some(Action::List(arguments)) => list(arguments).await,
            Some(Action::Other(action)) => other(action).await,
        }
    }
}

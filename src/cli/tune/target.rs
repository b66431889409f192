//! Which host, which data directory, which cores and which items a command is about.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::super::failure::usage;
use crate::{
    host::{
        self,
        tuning::{Finding, Host, ITEMS, Item, Tree},
    },
    settings::core_list,
};

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The broker's data directory; it need not exist yet
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./data",
        env = "MILLSTREAM_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: PathBuf,
    /// Cores that shards run on, as given to `serve`: 0,2-5
    #[arg(long, value_name = "LIST", env = "MILLSTREAM_CORES", hide_env_values = true, value_parser = parse_cores)]
    cores: Option<Cores>,
    /// Only these items
    #[arg(long, value_name = "ITEM", value_delimiter = ',')]
    only: Vec<String>,
    /// All items but these
    #[arg(long, value_name = "ITEM", value_delimiter = ',')]
    skip: Vec<String>,
    #[command(flatten)]
    root: RootArgs,
}

/// Tests have a host of their own.
#[derive(Debug, Args)]
pub(super) struct RootArgs {
    /// Tree to look at and change instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// A list of cores; a type of its own, for the command line would take a bare list for many values.
#[derive(Clone, Debug)]
struct Cores(Option<Vec<usize>>);

fn parse_cores(text: &str) -> Result<Cores, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Cores(None));
    }
    core_list(text)
        .map(|cores| Cores(Some(cores)))
        .ok_or_else(|| "a list such as 0,2-5, or auto, is wanted".to_owned())
}

impl RootArgs {
    pub(super) fn tree(&self) -> Tree {
        Tree::new(&self.root)
    }

    fn is_this_host(&self) -> bool {
        self.root == Path::new("/")
    }
}

impl TargetArgs {
    pub(super) fn tree(&self) -> Tree {
        self.root.tree()
    }

    /// Looks at every item that was chosen.
    pub(super) fn findings(&self, tree: &Tree) -> Result<Vec<(&'static Item, Finding)>> {
        let data_dir = self.data_dir()?;
        let shard_cpus = self.shard_cpus();
        let this_host = self.root.is_this_host();
        let ring_refused = this_host
            .then(|| host::check_kernel().err().map(|error| error.to_string()))
            .flatten();
        let host = Host {
            files: tree,
            shard_cpus: shard_cpus.as_deref(),
            data_dir: &data_dir,
            ring_refused,
        };
        let items = self.items()?.into_iter();
        Ok(items.map(|item| (item, (item.check)(&host))).collect())
    }

    fn items(&self) -> Result<Vec<&'static Item>> {
        for name in self.only.iter().chain(&self.skip) {
            if ITEMS.iter().all(|item| item.name != name) {
                let names: Vec<_> = ITEMS.iter().map(|item| item.name).collect();
                return Err(usage(format!(
                    "there is no item {name:?}; there are {}",
                    names.join(", ")
                )));
            }
        }
        let named = |names: &[String], item: &Item| names.iter().any(|name| name == item.name);
        let items = ITEMS.iter().filter(|item| {
            (self.only.is_empty() || named(&self.only, item)) && !named(&self.skip, item)
        });
        Ok(items.collect())
    }

    /// Absolute and without links, as mounts are listed; of what does not exist yet, what it will be in.
    fn data_dir(&self) -> Result<PathBuf> {
        let path = std::path::absolute(&self.data_dir)?;
        if !self.root.is_this_host() {
            return Ok(path);
        }
        let existing = path.ancestors().find_map(|path| path.canonicalize().ok());
        Ok(existing.unwrap_or(path))
    }

    fn shard_cpus(&self) -> Option<Vec<usize>> {
        if let Some(Cores(Some(cores))) = &self.cores {
            return Some(cores.clone());
        }
        self.root.is_this_host().then(|| {
            let resources = host::resources();
            let count = resources.default_shard_count() as usize;
            resources.cores.into_iter().take(count).collect()
        })
    }
}

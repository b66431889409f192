//! The state of a disk: what programs see, what would survive, and what lies between.
//!
//! Every file and directory exists twice, as it *is* (`current`) and as it is *durable*. What was done
//! since the last flush is a list of changes; a flush moves changes to the durable side, a crash
//! decides on each change. A write that the program later overwrote needs no reordering of its own:
//! keeping the older and dropping the newer is one of the choices.

use std::{collections::BTreeMap, io, path::Path, rc::Rc};

use super::{
    changes::{Change, FileState, Pending, Survival},
    fault::{CrashPolicy, Errno},
};
use crate::io::Random;

/// Number of a file or directory; the root is 0.
pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 0;

/// A name that came, went or moved: all parts happen together.
#[derive(Clone, Debug)]
struct NameChange {
    number: u64,
    parts: Vec<(Inode, String, Option<Inode>)>,
}

type Names = BTreeMap<String, Inode>;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileState),
    Directory { durable: Names, current: Names },
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct DiskState {
    nodes: BTreeMap<Inode, Node>,
    names: Vec<NameChange>,
    inode_next: Inode,
    number_next: u64,
    pub(super) capacity: u64,
}

impl DiskState {
    pub(super) fn new(capacity: u64) -> Self {
        let root = Node::Directory {
            durable: Names::new(),
            current: Names::new(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            names: Vec::new(),
            inode_next: ROOT + 1,
            number_next: 0,
            capacity,
        }
    }

    fn number(&mut self) -> u64 {
        self.number_next += 1;
        self.number_next
    }

    /// Changes with a smaller number had completed before now.
    pub(super) fn mark(&self) -> u64 {
        self.number_next + 1
    }

    // --- names -------------------------------------------------------------------------------

    fn entries(&self, inode: Inode) -> io::Result<&Names> {
        match self.nodes.get(&inode) {
            Some(Node::Directory { current, .. }) => Ok(current),
            Some(Node::File(_)) => Err(Errno::NotDirectory.into()),
            None => Err(Errno::NotFound.into()),
        }
    }

    pub(super) fn look_up(&self, path: &Path) -> io::Result<Inode> {
        components(path)?.iter().try_fold(ROOT, |inode, name| {
            self.entries(inode)?
                .get(name)
                .copied()
                .ok_or_else(|| Errno::NotFound.into())
        })
    }

    /// The directory that holds `path`, and the last name.
    fn parent(&self, path: &Path) -> io::Result<(Inode, String)> {
        let mut names = components(path)?;
        let last = names.pop().ok_or_else(|| io::Error::from(Errno::Invalid))?;
        let directory = names.iter().try_fold(ROOT, |inode, name| {
            self.entries(inode)?
                .get(name)
                .copied()
                .ok_or_else(|| io::Error::from(Errno::NotFound))
        })?;
        self.entries(directory)?;
        Ok((directory, last))
    }

    fn change_names(&mut self, parts: Vec<(Inode, String, Option<Inode>)>) {
        for (directory, name, inode) in &parts {
            if let Some(Node::Directory { current, .. }) = self.nodes.get_mut(directory) {
                set_name(current, name, *inode);
            }
        }
        let number = self.number();
        self.names.push(NameChange { number, parts });
    }

    fn add(&mut self, directory: Inode, name: String, node: Node) -> Inode {
        let inode = self.inode_next;
        self.inode_next += 1;
        self.nodes.insert(inode, node);
        self.change_names(vec![(directory, name, Some(inode))]);
        inode
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Inode> {
        let (directory, name) = self.parent(path)?;
        if self.entries(directory)?.contains_key(&name) {
            return Err(Errno::Exists.into());
        }
        let file = FileState {
            linked: true,
            ..FileState::default()
        };
        Ok(self.add(directory, name, Node::File(file)))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = ROOT;
        for name in components(path)? {
            let found = self.entries(directory)?.get(&name).copied();
            directory = found.unwrap_or_else(|| {
                let node = Node::Directory {
                    durable: Names::new(),
                    current: Names::new(),
                };
                self.add(directory, name, node)
            });
        }
        self.entries(directory).map(|_| ())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
        let names = self.entries(self.look_up(path)?)?;
        Ok(names.keys().map(|name| path.join(name)).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.look_up(from)?;
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        if let Some(replaced) = self.entries(to_directory)?.get(&to_name).copied() {
            if replaced == inode {
                return Ok(());
            }
            match self.nodes.get_mut(&replaced) {
                Some(Node::File(file)) => file.linked = false,
                Some(Node::Directory { .. }) | None => return Err(Errno::IsDirectory.into()),
            }
        }
        self.change_names(vec![
            (from_directory, from_name, None),
            (to_directory, to_name, Some(inode)),
        ]);
        self.collect();
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.look_up(path)?;
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file.linked = false,
            Some(Node::Directory { .. }) | None => return Err(Errno::IsDirectory.into()),
        }
        let (directory, name) = self.parent(path)?;
        self.change_names(vec![(directory, name, None)]);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.entries(self.look_up(path)?)?.is_empty() {
            return Err(Errno::NotEmpty.into());
        }
        let (directory, name) = self.parent(path)?;
        self.change_names(vec![(directory, name, None)]);
        Ok(())
    }

    /// Makes the names of a directory durable, and with them every earlier change that a shared
    /// rename ties to them: a file that moved must not come back under its old name later.
    pub(super) fn sync_dir(&mut self, directory: Inode, mark: u64) {
        let mut touched = vec![directory];
        let mut chosen = Vec::new();
        let mut rest = Vec::new();
        for change in std::mem::take(&mut self.names).into_iter().rev() {
            let belongs = change
                .parts
                .iter()
                .any(|(inode, ..)| touched.contains(inode));
            if change.number < mark && belongs {
                touched.extend(change.parts.iter().map(|(inode, ..)| *inode));
                chosen.push(change);
            } else {
                rest.push(change);
            }
        }
        rest.reverse();
        self.names = rest;
        for change in chosen.into_iter().rev() {
            self.make_durable(&change);
        }
        self.collect();
    }

    fn make_durable(&mut self, change: &NameChange) {
        for (directory, name, inode) in &change.parts {
            if let Some(Node::Directory { durable, .. }) = self.nodes.get_mut(directory) {
                set_name(durable, name, *inode);
            }
        }
    }

    /// Forgets what no name leads to, now or after any crash, and nobody has open.
    fn collect(&mut self) {
        let mut reached = std::collections::BTreeSet::from([ROOT]);
        let mut queue = vec![ROOT];
        queue.extend(
            self.names
                .iter()
                .flat_map(|c| c.parts.iter().filter_map(|part| part.2)),
        );
        while let Some(inode) = queue.pop() {
            reached.insert(inode);
            if let Some(Node::Directory { durable, current }) = self.nodes.get(&inode) {
                let below = durable.values().chain(current.values()).copied();
                queue.extend(below.filter(|inode| !reached.contains(inode)));
            }
        }
        self.nodes.retain(|inode, node| {
            let open = matches!(node, Node::File(file) if file.handle_count > 0);
            open || reached.contains(inode)
        });
    }

    // --- files -------------------------------------------------------------------------------

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileState> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory { .. }) => Err(Errno::IsDirectory.into()),
            None => Err(Errno::NotFound.into()),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileState> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory { .. }) => Err(Errno::IsDirectory.into()),
            None => Err(Errno::NotFound.into()),
        }
    }

    pub(super) fn handle_opened(&mut self, inode: Inode) -> io::Result<()> {
        self.file_mut(inode).map(|file| file.handle_count += 1)
    }

    pub(super) fn handle_closed(&mut self, inode: Inode) {
        if let Ok(file) = self.file_mut(inode) {
            file.handle_count = file.handle_count.saturating_sub(1);
            if file.handle_count == 0 && !file.linked {
                self.collect();
            }
        }
    }

    /// Bytes taken by what can still be reached.
    pub(super) fn used(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) if file.linked || file.handle_count > 0 => Some(file),
            Node::File(_) | Node::Directory { .. } => None,
        });
        files.map(|file| file.current.physical_size()).sum()
    }

    pub(super) fn has_room(&self, growth: u64) -> bool {
        growth == 0 || self.used() + growth <= self.capacity
    }

    /// A change that completes later, by [`Self::complete`].
    pub(super) fn begin(&mut self, inode: Inode, change: Change) -> io::Result<u64> {
        let number = self.number();
        self.file_mut(inode)?.in_flight.insert(number, change);
        Ok(number)
    }

    pub(super) fn complete(&mut self, inode: Inode, begun: u64) -> io::Result<()> {
        let number = self.number();
        let file = self.file_mut(inode)?;
        if let Some(change) = file.in_flight.remove(&begun) {
            change.apply(Rc::make_mut(&mut file.current));
            file.pending.push(Pending {
                number,
                change,
                forsaken: false,
            });
        }
        Ok(())
    }

    /// A write that failed: nobody knows which sectors arrived, or still will.
    pub(super) fn botch(&mut self, inode: Inode, begun: u64, random: &mut Random) {
        let number = self.number();
        if let Ok(file) = self.file_mut(inode)
            && let Some(change) = file.in_flight.remove(&begun)
        {
            change.tear(Rc::make_mut(&mut file.current), random);
            file.pending.push(Pending {
                number,
                change,
                forsaken: true,
            });
        }
    }

    /// Makes durable what had completed before `mark`.
    pub(super) fn sync_data(&mut self, inode: Inode, mark: u64) -> io::Result<()> {
        let file = self.file_mut(inode)?;
        let durable = Rc::make_mut(&mut file.durable);
        file.pending.retain(|pending| {
            let covered = pending.number < mark && !pending.forsaken;
            if covered {
                pending.change.apply(durable);
            }
            !covered
        });
        Ok(())
    }

    /// A flush failed: what it should have covered is never flushed.
    pub(super) fn forsake(&mut self, inode: Inode, mark: u64) {
        if let Ok(file) = self.file_mut(inode) {
            for pending in file
                .pending
                .iter_mut()
                .filter(|pending| pending.number < mark)
            {
                pending.forsaken = true;
            }
        }
    }

    pub(super) fn flip(&mut self, inode: Inode, position: u64, mask: u8) -> io::Result<()> {
        let file = self.file_mut(inode)?;
        Rc::make_mut(&mut file.durable).flip(position, mask);
        Rc::make_mut(&mut file.current).flip(position, mask);
        Ok(())
    }

    /// The process ends and the system goes on: what is in flight arrives.
    pub(super) fn settle(&mut self) {
        let in_flight: Vec<(Inode, u64)> = self
            .nodes
            .iter()
            .filter_map(|(inode, node)| match node {
                Node::File(file) => Some(file.in_flight.keys().map(|begun| (*inode, *begun))),
                Node::Directory { .. } => None,
            })
            .flatten()
            .collect();
        for (inode, begun) in in_flight {
            // It is there: it was just found.
            let _ = self.complete(inode, begun);
        }
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handle_count = 0;
            }
        }
        self.collect();
    }

    // --- crash -------------------------------------------------------------------------------

    pub(super) fn crash(&mut self, policy: CrashPolicy) {
        let mut survival = Survival::new(policy);
        for change in std::mem::take(&mut self.names) {
            if survival.keeps_name() {
                self.make_durable(&change);
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.survive(&mut survival),
                Node::Directory { durable, current } => current.clone_from(durable),
            }
        }
        self.collect();
    }
}

fn set_name(names: &mut Names, name: &str, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

fn components(path: &Path) -> io::Result<Vec<String>> {
    use std::path::Component;
    let names = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    names
        .map(|part| match part {
            Component::Normal(name) => name
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| Errno::Invalid.into()),
            _ => Err(Errno::Invalid.into()),
        })
        .collect()
}

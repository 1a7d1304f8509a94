//! Kinds of locks: a person, an AI agent, a process, Terraform and Git LFS lock the same workspaces. All differences
//! between them are in one table, [`LockKind::properties`]; their lease lengths and limits are settings.

/// Kind of a lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// A person.
    #[default]
    Edit,
    /// An AI agent.
    Agent,
    /// A process, such as `lockhouse run`.
    Run,
    /// A Terraform or `OpenTofu` state.
    Terraform,
    /// A file of a Git LFS repository.
    Lfs,
}

/// Who owns a lock, among the sessions of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// All sessions of the user, or one, by `locks.same_user`.
    BySetting,
    /// One session. A lease without a session id is known by its fence only.
    Session,
    /// All sessions of the user.
    User,
}

/// What distinguishes a kind from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindProperties {
    /// Name in the API and in the store.
    pub name: &'static str,
    /// Who owns the lock.
    pub owner: Owner,
    /// Whether the lock passes on without its holder: to a knock that was not answered, by
    /// `locks.idle_takeover_after`, or because a granted lease was not claimed within `locks.claim_within`. A holder
    /// that is not a person in front of a screen answers no knock and shows no activity.
    pub passes_on: bool,
    /// Whether `force` takes the lock over. Other locks must be revoked first: their holder cannot be told to stop.
    pub yields_to_force: bool,
    /// Whether it is an agent. People outrank agents: an agent takes nothing from anybody, yields to people if
    /// `locks.agents_yield` says so, and stands behind all others in the line.
    pub is_agent: bool,
}

impl LockKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Edit, Self::Agent, Self::Run, Self::Terraform, Self::Lfs];

    /// The kinds that a request can name. The others have paths of their own.
    pub const BY_REQUEST: [Self; 3] = [Self::Edit, Self::Agent, Self::Run];

    /// The table of the kinds.
    #[must_use]
    pub const fn properties(self) -> KindProperties {
        let (name, owner, passes_on, yields_to_force) = match self {
            Self::Edit => ("edit", Owner::BySetting, true, true),
            Self::Agent => ("agent", Owner::Session, true, true),
            Self::Run => ("run", Owner::Session, false, false),
            // The session is Terraform's lock id.
            Self::Terraform => ("terraform", Owner::Session, false, false),
            Self::Lfs => ("lfs", Owner::User, false, false),
        };
        let is_agent = matches!(self, Self::Agent);
        KindProperties { name, owner, passes_on, yields_to_force, is_agent }
    }

    /// Name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.properties().name
    }

    /// Whether it is an agent.
    #[must_use]
    pub const fn is_agent(self) -> bool {
        self.properties().is_agent
    }

    /// Kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

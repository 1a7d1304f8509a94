//! One setting of the table.

use toml::Value;

use super::kinds::Kind;

type Set<C> = Box<dyn Fn(&mut C, &Value) -> Option<()> + Send + Sync>;

/// One setting of a configuration `C`.
pub struct Setting<C> {
    /// The TOML table, such as `locks` or `kinds.run`.
    pub section: &'static str,
    /// The key in the table.
    pub name: &'static str,
    /// The description, in sentences.
    pub about: &'static str,
    /// The accepted values, as the end of the sentence "it takes …".
    pub allowed: String,
    /// Whether the value must not be shown.
    pub is_secret: bool,
    /// The command-line flag of the setting, if it has one.
    pub flag: Option<&'static str>,
    set: Set<C>,
    show: Box<dyn Fn(&C) -> Value + Send + Sync>,
}

impl<C: 'static> Setting<C> {
    pub(super) fn new<T: 'static>(
        [section, name, about]: [&'static str; 3],
        kind: Kind<T>,
        get: fn(&C) -> &T,
        get_mut: fn(&mut C) -> &mut T,
    ) -> Self {
        let Kind { allowed, read, show, is_secret, flag } = kind;
        let set = Box::new(move |config: &mut C, value: &Value| {
            *get_mut(config) = read(value)?;
            Some(())
        });
        let show = Box::new(move |config: &C| show(get(config)));
        Self { section, name, about, allowed, is_secret, flag, set, show }
    }

    /// `section.name`
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `LOCKHOUSE_SECTION_NAME`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LOCKHOUSE_{}_{}", self.section.replace('.', "_"), self.name).to_ascii_uppercase()
    }

    /// Sets the value in `config`. Returns `None` if the value is not accepted.
    pub(super) fn set(&self, config: &mut C, value: &Value) -> Option<()> {
        (self.set)(config, value)
    }

    /// The value in `config`, as TOML.
    #[must_use]
    pub fn show(&self, config: &C) -> String {
        (self.show)(config).to_string()
    }

    /// The lines of [`Self::about`].
    pub(super) fn lines(&self) -> impl Iterator<Item = &'static str> {
        self.about.lines().map(str::trim)
    }
}

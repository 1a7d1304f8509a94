//! The settings of `[server]`.

use super::settings::Setting;
use super::types::Demo;
use super::values::{
    choice, number_within, show_choice, show_duration, show_size, size_within, timeout, yes_or_no,
};

fn show_bytes(bytes: usize) -> String {
    show_size(u64::try_from(bytes).ok())
}

const A_TIMEOUT: &str = "it takes a duration from 1ms to a day, such as \"500ms\" or \"30s\"";

const DEMO: &[(&str, Demo)] = &[("auto", Demo::Auto), ("on", Demo::On), ("off", Demo::Off)];

pub(super) const SERVER: &[Setting] = &[
    Setting {
        section: "server",
        name: "listen",
        about: "Where to listen: an address and a port, or unix:PATH for a Unix socket. Port 0 picks a free one. A\n\
                socket handed over by systemd (LISTEN_FDS) goes before it. With auth.mode = \"none\" only a\n\
                loopback address or a Unix socket.",
        allowed: "it takes ADDRESS:PORT, such as \"127.0.0.1:7311\" or \"[::1]:7311\", or unix:PATH, such as \"unix:/run/lockhouse/lockhouse.sock\"",
        secret: false,
        read: |config, given| {
            config.server.listen = given.text()?.parse()?;
            Ok(())
        },
        show: |config| format!("{:?}", config.server.listen.to_string()),
    },
    Setting {
        section: "server",
        name: "socket_mode",
        about: "Who may connect to the Unix socket, as the permissions of a file in octal: \"0600\" its owner,\n\
                \"0660\" the group too.",
        allowed: "it takes permissions in octal that let at least the owner read and write, such as \"0600\" or \"0660\"",
        secret: false,
        read: |config, given| {
            let text = given.text()?;
            let digits = text.strip_prefix('0').filter(|digits| digits.len() == 3).unwrap_or(&text);
            if digits.len() != 3 {
                return Err(());
            }
            let mode = u32::from_str_radix(digits, 8).map_err(drop)?;
            if mode & 0o600 != 0o600 {
                return Err(());
            }
            config.server.socket_mode = mode;
            Ok(())
        },
        show: |config| format!("\"{:04o}\"", config.server.socket_mode),
    },
    Setting {
        section: "server",
        name: "trusted_proxies",
        about: "The proxies in front of this server: addresses, networks such as \"10.0.0.0/8\", and \"unix\" for\n\
                those that come by the Unix socket. What they say in X-Forwarded-For is believed; what anybody\n\
                else says there is not.",
        allowed: "it takes a list of addresses, networks and \"unix\", such as [\"127.0.0.1\", \"10.0.0.0/8\"]",
        secret: false,
        read: |config, given| {
            let proxies = given.list()?;
            config.server.trusted_proxies =
                proxies.iter().map(|proxy| proxy.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let shown: Vec<_> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
            format!("{shown:?}")
        },
    },
    Setting {
        section: "server",
        name: "cors_origins",
        about: "The web origins whose pages may call the API from a browser, such as \"https://app.example\",\n\
                as the browser writes them. In the environment separated by commas.",
        allowed: "it takes a list of origins (scheme, host and port; no path, no slash at the end, no *), such as [\"https://app.example\"]",
        secret: false,
        read: |config, given| {
            let origins: Vec<_> = given.list()?.iter().map(|origin| as_browsers_write(origin)).collect();
            let fine = |origin: &String| {
                origin.split_once("://").is_some_and(|(scheme, host)| {
                    matches!(scheme, "http" | "https")
                        && !host.is_empty()
                        && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\"*@".contains(&byte))
                })
            };
            if origins.iter().all(fine) {
                config.server.cors_origins = origins;
                Ok(())
            } else {
                Err(())
            }
        },
        show: |config| format!("{:?}", config.server.cors_origins),
    },
    Setting {
        section: "server",
        name: "console",
        about: "Whether there is the web console, at /. It shows nothing that its reader's credentials do not.",
        allowed: "it takes true or false",
        secret: false,
        read: |config, given| {
            config.server.console = yes_or_no(given)?;
            Ok(())
        },
        show: |config| config.server.console.to_string(),
    },
    Setting {
        section: "server",
        name: "demo",
        about: "Whether there is the playground, at /demo: \"on\", \"off\", or \"auto\": with auth.mode = \"none\" only.",
        allowed: "it takes \"auto\", \"on\" or \"off\"",
        secret: false,
        read: |config, given| {
            config.server.demo = choice(given, DEMO)?;
            Ok(())
        },
        show: |config| show_choice(&config.server.demo, DEMO),
    },
    Setting {
        section: "server",
        name: "head_timeout",
        about: "How long the request line and the headers may take to arrive, from their first byte on.",
        allowed: A_TIMEOUT,
        secret: false,
        read: |config, given| {
            config.server.head_timeout = timeout(given)?;
            Ok(())
        },
        show: |config| show_duration(config.server.head_timeout),
    },
    Setting {
        section: "server",
        name: "body_timeout",
        about: "How long the body of a request may take to arrive.",
        allowed: A_TIMEOUT,
        secret: false,
        read: |config, given| {
            config.server.body_timeout = timeout(given)?;
            Ok(())
        },
        show: |config| show_duration(config.server.body_timeout),
    },
    Setting {
        section: "server",
        name: "idle_timeout",
        about: "How long a connection is kept on which nothing is asked.",
        allowed: A_TIMEOUT,
        secret: false,
        read: |config, given| {
            config.server.idle_timeout = timeout(given)?;
            Ok(())
        },
        show: |config| show_duration(config.server.idle_timeout),
    },
    Setting {
        section: "server",
        name: "write_timeout",
        about: "How long a client may leave an answer unread before it is cut off.",
        allowed: A_TIMEOUT,
        secret: false,
        read: |config, given| {
            config.server.write_timeout = timeout(given)?;
            Ok(())
        },
        show: |config| show_duration(config.server.write_timeout),
    },
    Setting {
        section: "server",
        name: "max_head",
        about: "The size that the request line and the headers of a request may have together.",
        allowed: "it takes a whole number with a unit, from \"1KiB\" to \"1MiB\", such as \"16KiB\"",
        secret: false,
        read: |config, given| {
            config.server.max_head = size_within(given, 1 << 10, 1 << 20)?;
            Ok(())
        },
        show: |config| show_bytes(config.server.max_head),
    },
    Setting {
        section: "server",
        name: "max_headers",
        about: "How many headers a request may have.",
        allowed: "it takes a number from 8 to 256",
        secret: false,
        read: |config, given| {
            config.server.max_headers = number_within(given, 8, 256)?;
            Ok(())
        },
        show: |config| config.server.max_headers.to_string(),
    },
    Setting {
        section: "server",
        name: "max_body",
        about: "The size that the body of a request may have.",
        allowed: "it takes a whole number with a unit, from \"8KiB\" to \"16MiB\", such as \"64KiB\"",
        secret: false,
        read: |config, given| {
            config.server.max_body = size_within(given, 8 << 10, 16 << 20)?;
            Ok(())
        },
        show: |config| show_bytes(config.server.max_body),
    },
    Setting {
        section: "server",
        name: "max_connections",
        about: "How many clients may be connected at a time. The limit of open files, which is raised as far as\n\
                the system allows, can make it fewer. When there are as many, new ones take the place of\n\
                those that do not finish what they began, then of those that never asked for anything, then of\n\
                idle ones.",
        allowed: "it takes a number from 1 to 1000000",
        secret: false,
        read: |config, given| {
            config.server.max_connections = number_within(given, 1, 1_000_000)?;
            Ok(())
        },
        show: |config| config.server.max_connections.to_string(),
    },
    Setting {
        section: "server",
        name: "max_buffered",
        about: "The memory that requests and answers on their way may take together. Beyond it, clients that do\n\
                not read, or do not finish what they began, are cut off.",
        allowed: "it takes a whole number with a unit, from \"1MiB\" to \"64GiB\", such as \"128MiB\"",
        secret: false,
        read: |config, given| {
            config.server.max_buffered = size_within(given, 1 << 20, 64 << 30)?;
            Ok(())
        },
        show: |config| show_bytes(config.server.max_buffered),
    },
    Setting {
        section: "server",
        name: "shutdown_grace",
        about: "How long a stop waits for requests that are being answered.",
        allowed: A_TIMEOUT,
        secret: false,
        read: |config, given| {
            config.server.shutdown_grace = timeout(given)?;
            Ok(())
        },
        show: |config| show_duration(config.server.shutdown_grace),
    },
];

/// An origin as a browser writes it: in small letters, and without the port that goes without saying.
fn as_browsers_write(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let implied = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(implied).unwrap_or(&origin).to_owned()
}

/** A name that nobody else has. (`randomUUID` is there on pages with TLS only.) */
export const randomName = () => crypto.getRandomValues(new Uint32Array(3)).join('-');

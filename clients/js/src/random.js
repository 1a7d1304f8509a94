/** A unique name. `randomUUID` exists on pages with TLS only. */
export const randomName = () => crypto.getRandomValues(new Uint32Array(3)).join('-');

// Exports tables as CSV.

/** Prevents formula injection: a spreadsheet must not run a user's name as a formula. */
const FORMULA = /^\s*[=+\-@\t\r]/;

function cell(value) {
  const text = typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value ?? '');
  const safe = typeof value === 'string' && FORMULA.test(text) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Downloads a file with these columns of these objects. */
export function saveCsv(name, columns, objects) {
  const rows = [columns, ...objects.map((object) => columns.map((column) => object[column]))];
  // The byte order mark makes Excel read it as UTF-8.
  const text = '\ufeff' + rows.map((row) => row.map(cell).join(',') + '\r\n').join('');
  const href = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  const link = document.createElement('a');
  Object.assign(link, { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

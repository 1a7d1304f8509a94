import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [react()],
  // The client is a folder of this repository. It must use the React of this app.
  resolve: { dedupe: ['react'] },
});

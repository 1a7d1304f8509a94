import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Editor } from './Editor';
import './style.css';

createRoot(document.getElementById('app')!).render(
  <StrictMode>
    <Editor id="design-42" />
  </StrictMode>,
);
